package ingest

import (
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	minChunkBytes = 1 << 10
	maxChunkBytes = 64 << 10
	// busyChunk is the time within which a chunk fills up on a stream that
	// deserves larger ones.
	busyChunk = 100 * time.Millisecond
)

// arena allocates records in chunks, so that most reports cost no allocation.
// A record's bytes are never written again: the log may keep them. A chunk grows with
// the stream's rate, so that a phone's stream holds little. It belongs to one
// goroutine.
type arena struct {
	chunk   []byte
	size    int
	started time.Duration // by the monotonic clock

	// The key of the last record, used again while the vehicle is the same.
	vehicleID string
	key       []byte
	partition int32
}

// record encodes r as a record of `locations` and returns its partition.
func (a *arena) record(r *wire.Report, partitions int32, now time.Duration) (eventlog.Record, int32) {
	bound := r.SizeBound() + len(r.VehicleID)
	if cap(a.chunk)-len(a.chunk) < bound {
		a.grow(bound, now)
	}
	if len(a.key) == 0 || r.VehicleID != a.vehicleID {
		start := len(a.chunk)
		a.chunk = append(a.chunk, r.VehicleID...)
		a.vehicleID = r.VehicleID
		a.key = a.chunk[start:len(a.chunk):len(a.chunk)]
		a.partition = eventlog.PartitionOf(a.key, partitions)
	}
	start := len(a.chunk)
	a.chunk = wire.AppendReportRecord(a.chunk, r)
	return eventlog.Record{Key: a.key, Value: a.chunk[start:len(a.chunk):len(a.chunk)]}, a.partition
}

// grow starts a new chunk. It forgets the last key, which would keep the old
// chunk alive.
func (a *arena) grow(atLeast int, now time.Duration) {
	switch filledIn := now - a.started; {
	case filledIn < busyChunk:
		a.size = min(2*a.size, maxChunkBytes)
	default:
		a.size /= 2
	}
	a.size = max(a.size, minChunkBytes)
	a.chunk = make([]byte, 0, max(a.size, atLeast))
	a.started = now
	a.key = nil
}
