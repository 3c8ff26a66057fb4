// Package follow keeps a live index up to date with `tracks` and knows how
// current it is. It is imported by the matcher.
//
// A follower stores nothing. At start it reads a bounded stretch of every
// partition (Config.RebuildWindow), in which each vehicle that the tracker has
// not forgotten is published at least once, and serves from the moment when it has
// everything that was in the log when it started. A crash leaves nothing
// behind; the next start does the same again.
//
// # What counts
//
// Per partition a record counts if it advances (epoch, source offset). One that
// does not is a repeat, which a tracker publishes after a restart, and is
// dropped: it is identical to the one that counted. One whose previous source
// offset is not the last that counted shows a gap. It is passed over, and so is
// what follows, until the missing record comes: the next owner of the partition
// publishes everything behind its checkpoint again, in order. A gap that stays
// although a minute of later records has come (by append time, so that every
// matcher decides alike; a silence counts for a few seconds) can't be filled any
// more. A matcher that serves then
// stops with an error, because vehicles may have changed unseen; one that still
// rebuilds the partition starts over behind the gap, with none of its vehicles.
// starling_matcher_gaps_total counts both. A new
// epoch also starts over: vehicles are unknown until they are published again.
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
package follow
