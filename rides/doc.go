// Package rides is the role that matches rides with vehicles and carries them to
// their end. It owns partitions of `ride-requests` and writes `rides`;
// rides/owner decides what, docs/rides.md states by which rules.
//
//   - rides.go    life of the role; config.go, metrics.go
//   - board.go    what the trackers publish about reservations, for all owners
//   - partition.go the loop of one owned partition; load.go its checkpoints
//   - directory.go every ride as it was read back, for queries and subscribers
//   - server.go   the calls
package rides
