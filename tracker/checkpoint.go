package tracker

import (
	"runtime"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// headerKey is the key of the partition's own state. No vehicle id has a '!'.
const headerKey = "!partition"

// Cut is everything that changed since the cut before it, as of one offset.
type Cut struct {
	// Changes are the changed vehicles, tombstones of the forgotten ones and
	// the partition's own state.
	Changes []eventlog.Record
	// Resume is the offset at which a partition that is restored from this cut
	// and all before it goes on.
	Resume int64
	// Buffer holds the keys and values; when they are no longer needed it may be passed
	// to the next Cut.
	Buffer []byte
}

// Cut encodes what has changed since the last cut. The result is independent
// of what the partition does next. Keys and values are put into buffer's memory
// as far as it reaches.
func (p *Partition) Cut(buffer []byte) Cut {
	c := Cut{Changes: make([]eventlog.Record, 0, len(p.changed)+len(p.forgotten)+1), Resume: p.offset + 1}
	b := buffer[:0]
	// The buffer moves while it grows, so the records are cut out of it after.
	ends := make([]int, 0, 2*len(p.changed)+2)
	for i, v := range p.changed {
		if i%64 == 63 {
			runtime.Gosched() // many vehicles take long, and a search may wait
		}
		if v.dueSlot == notPlaced {
			continue // forgotten since
		}
		v.dirty = false
		b = append(b, v.id...)
		ends = append(ends, len(b))
		b = appendVehicle(b, v)
		ends = append(ends, len(b))
	}
	b = append(b, headerKey...)
	ends = append(ends, len(b))
	b = appendHeader(b, header{stepVersion: int64(p.version.number), epoch: p.epoch, clockMS: p.clockMS, offset: p.offset, settings: p.settings.Encode()})
	ends = append(ends, len(b))
	for start := 0; len(ends) > 0; ends = ends[2:] {
		c.Changes = append(c.Changes, eventlog.Record{Key: b[start:ends[0]:ends[0]], Value: b[ends[0]:ends[1]:ends[1]]})
		start = ends[1]
	}
	for _, id := range p.forgotten {
		if _, back := p.vehicles[id]; !back {
			c.Changes = append(c.Changes, eventlog.Record{Key: []byte(id)})
		}
	}
	c.Buffer = b
	clear(p.changed)
	p.changed = p.changed[:0]
	p.forgotten = nil
	return c
}
