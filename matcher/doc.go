// Package matcher holds the live fleet in memory and answers where it is. It
// reads all partitions of `tracks`, keeps the newest view of every vehicle in a
// liveindex.Index and serves starling.v1.FleetService from there.
//
// The package follow reads the log and knows how current the index is; liveindex
// finds, supply counts by cell, eta ranks by arrival; playout plays fixes out and
// feed notifies calls of what has changed. The calls of the service are in query,
// those that look once, and in watch, those that stay open. What is left here is
// the role's life: its configuration, its parts put together, its server.
package matcher
