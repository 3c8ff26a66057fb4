// Package matcher holds the live fleet in memory and answers where it is. It
// reads all partitions of `tracks`, keeps the newest view of every vehicle in a
// liveindex.Index and serves starling.v1.FleetService from there.
//
// A matcher stores nothing. At start it reads a bounded stretch of every
// partition (Config.RebuildWindow), in which each vehicle that the tracker has
// not forgotten is told at least once, and serves from the moment when it has
// everything that was in the log when it started. A crash leaves nothing
// behind; the next start does the same again.
//
// # What counts
//
// Per partition a record counts if it advances (epoch, source offset). One that
// does not is a repeat, which a tracker publishes after a restart, and is
// dropped: it is identical to the one that counted. One whose previous source
// offset is not the last that counted shows a hole. It is passed over, and so is
// what follows, until the missing record comes: the next owner of the partition
// publishes everything behind its checkpoint again, in order. A hole that stays
// although a minute of later records has come (by append time, so that every
// matcher decides alike; a silence counts for a few seconds) can't be filled any
// more. A matcher that serves then
// stops with an error, because vehicles may have changed unseen; one that still
// rebuilds the partition starts over behind the hole, with none of its vehicles.
// starling_matcher_holes_total counts both. A new
// epoch also starts over: vehicles are unknown until they are told again.
//
// # Staleness
//
// A partition is stale when its stream time and the append time of the newest
// record that its tracker has answered are both behind the wall clock by more
// than Config.StaleAfter. A time that is in the future by more than 5 s shows
// nothing: neither a bad stamp nor a believed jump hides a tracker that has
// stopped. Every answer names the stale partitions that it may have read from.
//
// # Ages
//
// A fix was taken at its device time less what the device's clock is ahead, as
// the tracker has learned it, and not after the log had the report that it came
// with. Its age is the time from then to the later of the wall clock and its
// partition's stream time. max_age, prediction and dispatchability use the same
// age. A clock that disagrees with the log's stamps is an alarm (skew).
//
// # Watching
//
// A change is handed on by the goroutine that applies it, which never waits for
// a watcher. Calls that watch a vehicle are woken and look at its newest state,
// or play its fixes out from a tape (see tape and player). Calls that watch
// areas or counts read feeds of what has changed in the cubes, or at the
// resolution, that they watch (see feed), and look at nothing else. What a
// client of WatchArea was told is kept in a session for some time after its call
// has ended, so that another call can go on from there.
package matcher
