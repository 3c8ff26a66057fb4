package tracker

import (
	"fmt"
	"slices"

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
	for _, v := range p.changed {
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
	b = appendHeader(b, header{stepVersion: StepVersion, epoch: p.epoch, clockMS: p.clockMS, offset: p.offset, settings: p.settings})
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

// Loader restores a partition from its checkpoints.
type Loader struct {
	partition *Partition
	restored  bool
}

// NewLoader starts to restore a partition of a log with the given epoch. The
// settings are those of a partition that has no checkpoint; one that has keeps
// its own.
func NewLoader(settings Settings, epoch int64) (*Loader, error) {
	p, err := NewPartition(settings, epoch)
	if err != nil {
		return nil, err
	}
	return &Loader{partition: p}, nil
}

// Add takes one key of the state with its latest value, in any order. It fails
// with *UnknownStateError when another version wrote it, and when it is damaged
// or of another epoch.
func (l *Loader) Add(key, value []byte) error {
	p := l.partition
	if string(key) != headerKey {
		v, err := decodeVehicle(string(key), value)
		if err != nil {
			return err
		}
		p.vehicles[v.id] = v
		return nil
	}
	h, err := decodeHeader(value)
	if err != nil {
		return err
	}
	if h.epoch != p.epoch {
		return fmt.Errorf("state of the partition is of epoch %d, the log's is %d", h.epoch, p.epoch)
	}
	p.clockMS, p.offset = h.clockMS, h.offset
	l.restored = true
	return p.use(h.settings)
}

// Partition returns the partition as of the resume offset of its last
// checkpoint, -1 if it has none.
func (l *Loader) Partition(resume int64) (*Partition, error) {
	p := l.partition
	switch {
	case resume < 0 && !l.restored && len(p.vehicles) == 0:
		return p, nil
	case !l.restored:
		return nil, fmt.Errorf("the checkpoint at offset %d has %d vehicles and no state of the partition", resume, len(p.vehicles))
	case resume != p.offset+1:
		return nil, fmt.Errorf("the checkpoint resumes at offset %d, the state stands for the records before %d", resume, p.offset+1)
	}
	p.dues.heap = make([]placed, 0, len(p.vehicles))
	for _, v := range p.vehicles {
		v.dueSlot = int32(len(p.dues.heap))
		p.dues.heap = append(p.dues.heap, placed{p.due(v), v})
	}
	slices.SortFunc(p.dues.heap, func(a, b placed) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for i := range p.dues.heap {
		p.dues.heap[i].vehicle.dueSlot = int32(i)
	}
	return p, nil
}
