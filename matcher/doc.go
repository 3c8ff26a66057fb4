// Package matcher holds the live fleet in memory and answers where it is. It
// reads all partitions of `tracks`, keeps the newest view of every vehicle in a
// liveindex.Index and serves starling.v1.FleetService from there.
//
// The package follow reads the log and knows how current the index is; liveindex
// finds, supply counts by cell, eta ranks by arrival; playout plays fixes out and
// feed notifies calls of what has changed. What is left here are the calls of the
// service: their rules, their answers, and how they watch.
//
// # Watching
//
// A change is handed on by the goroutine that applies it, which never waits for
// a watcher. Calls that watch a vehicle are woken and look at its newest state,
// or play its fixes out from a buffer (see playout). Calls that watch
// areas or counts read feeds of what has changed in the cubes, or at the
// resolution, that they watch (see feed), and look at nothing else. What a
// client of WatchArea was sent is kept in a session for some time after its call
// has ended, so that another call can go on from there.
package matcher
