// Package watch serves the calls of FleetService that stay open: of a vehicle, of
// an area and of counts by cell.
//
// A change is handed on by the goroutine that applies it, which never waits for
// a watcher. Calls that watch a vehicle are woken and look at its newest state,
// or play its fixes out from a buffer (see matcher/playout). Calls that watch
// areas or counts read feeds of what has changed in the cubes, or at the
// resolution, that they watch (see matcher/feed), and look at nothing else. What
// a client of WatchArea was sent is kept in a session for some time after its
// call has ended, so that another call can go on from there.
package watch
