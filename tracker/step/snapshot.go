package step

// headerKey is the key of the partition's own state. No vehicle id has a '!'.
const headerKey = "!partition"

// Change is one key of the topic `tracker-state` and its new value.
type Change struct {
	Key []byte
	// Value is nil when the vehicle was forgotten.
	Value []byte
}

// Snapshot is everything that changed since the snapshot before it, as of one
// offset.
type Snapshot struct {
	// Changes are the changed vehicles, tombstones of the forgotten ones and
	// the partition's own state.
	Changes []Change
	// Resume is the offset at which a partition that is restored from this
	// snapshot and all before it goes on.
	Resume int64
	// Buffer holds the keys and values; when they are no longer needed it may
	// be passed to the next Snapshot.
	Buffer []byte
}

// pauseEvery is how many vehicles are encoded between two calls of pause.
const pauseEvery = 64

// Snapshot encodes what has changed since the last snapshot. The result is
// independent of what the partition does next. Keys and values are put into
// buffer's memory as far as it reaches. Many vehicles take long, so pause is
// called now and then, unless it is nil; it must not use the partition.
func (p *Partition) Snapshot(buffer []byte, pause func()) Snapshot {
	c := Snapshot{Changes: make([]Change, 0, len(p.changed)+len(p.forgotten)+1), Resume: p.offset + 1}
	b := buffer[:0]
	// The buffer moves while it grows, so the records are sliced from it after.
	ends := make([]int, 0, 2*len(p.changed)+2)
	for i, v := range p.changed {
		if pause != nil && i%pauseEvery == pauseEvery-1 {
			pause()
		}
		if v.timerSlot == noSlot {
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
	b = appendHeader(b, header{stepVersion: int64(p.version.Number), epoch: p.epoch, streamMS: p.streamMS, jump: p.jump, offset: p.offset, settings: p.settings.Encode()})
	ends = append(ends, len(b))
	for start := 0; len(ends) > 0; ends = ends[2:] {
		c.Changes = append(c.Changes, Change{Key: b[start:ends[0]:ends[0]], Value: b[ends[0]:ends[1]:ends[1]]})
		start = ends[1]
	}
	for _, id := range p.forgotten {
		if _, back := p.vehicles[id]; !back {
			c.Changes = append(c.Changes, Change{Key: []byte(id)})
		}
	}
	c.Buffer = b
	clear(p.changed)
	p.changed = p.changed[:0]
	p.forgotten = nil
	return c
}
