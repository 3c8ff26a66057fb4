// Package redispositions keeps the last position of each vehicle in Redis, for
// services that do not speak to Starling. Nothing is read back from there but the
// state that shows that Redis has lost what was written.
//
//   - positions.go  what is written: from records of `tracks`, the newest only
//   - mirror.go     the vehicles, and which of them wait to be written
//   - write.go      the writer; write.lua is what Redis does with a batch
//
// Keys, after the prefix, which a cluster gets in braces so that all lie in one
// slot:
//
//	vehicle:{id}   hash of a vehicle; expires
//	fleet          geo set of the ids of vehicles with a position
//	fleet:times    sorted set of ids by the time of their write, by Redis's clock
//	fleet:former   ids of an epoch that has ended, whose hashes are deleted
//	fleet:state    hash: epoch, and a nonce that shows whether Redis was emptied
//
// # Order
//
// A vehicle's hash carries the epoch and the source offset of the record that it
// stands for. One script compares and writes hash, geo set and times, so however
// many processes write, however late, a vehicle never goes back. A vehicle that is
// forgotten leaves a hash of epoch and offset alone, until it expires.
//
// # Loss
//
// Whoever finds no state, or another nonce than it knew, writes every vehicle
// again: so after a flush and after a restart of an empty Redis. It does so too
// after calls have failed, because a replica that was promoted may lack the last
// writes.
package redispositions
