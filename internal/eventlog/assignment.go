package eventlog

import "sync/atomic"

// Assignment follows how many partitions a group assigns to one Own call. The
// adapters set it; it is safe for concurrent use, and a nil one ignores what is
// set.
type Assignment struct {
	partitions atomic.Int32
	joined     atomic.Bool
}

// Set records that the call has joined its group and that so many partitions, none
// or some, are its share now.
func (a *Assignment) Set(partitions int) {
	if a == nil {
		return
	}
	a.partitions.Store(int32(partitions))
	a.joined.Store(true)
}

// Reset records that the call has left its group.
func (a *Assignment) Reset() { a.joined.Store(false) }

// Partitions returns the call's share, and false before it has joined the group.
func (a *Assignment) Partitions() (int, bool) {
	if !a.joined.Load() {
		return 0, false
	}
	return int(a.partitions.Load()), true
}
