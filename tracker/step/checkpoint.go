package step

import (
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/tracker/reserve"
)

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
	b = appendHeader(b, header{stepVersion: int64(p.version.Number), epoch: p.epoch, streamMS: p.streamMS, jump: p.jump, offset: p.offset, repeated: p.repeated, assertions: p.assertions, settings: p.settings.Encode()})
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

// Loader restores a partition from its checkpoints.
type Loader struct {
	partition *Partition
	// restored is true when the partition's own state was among the keys, and
	// outdated when it is of an epoch before the log's.
	restored, outdated bool
}

// NewLoader starts to restore a partition of a log with the given epoch. The
// settings are those of a partition that has no checkpoint; one that has keeps
// its own.
func NewLoader(settings Settings, epoch int64) (*Loader, error) {
	return Carried().NewLoader(settings, epoch)
}

// NewLoader is the function NewLoader of a binary that carries these versions.
func (c Versions) NewLoader(settings Settings, epoch int64) (*Loader, error) {
	p, err := c.NewPartition(settings, epoch)
	if err != nil {
		return nil, err
	}
	return &Loader{partition: p}, nil
}

// Add takes one key of the state with its latest value, in any order. It fails
// with *UnknownStateError when another version wrote it, with
// *UnknownVersionError when it is of a step that this binary does not carry, and
// when it is damaged or of a later epoch than the log's.
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
	if h.epoch > p.epoch {
		return fmt.Errorf("state of the partition is of epoch %d, the log's is %d: this is not the log that the state was made from", h.epoch, p.epoch)
	}
	l.restored, l.outdated = true, h.epoch < p.epoch
	return p.restore(h)
}

// Begins returns, once every key was added, whether the partition begins anew:
// it has no state, or only that of an epoch before the log's.
func (l *Loader) Begins() bool { return !l.restored || l.outdated }

// Outdated returns whether the state is of an epoch before the log's, and its
// stream time.
func (l *Loader) Outdated() (streamMS int64, outdated bool) {
	return l.partition.streamMS, l.outdated
}

// Bounds are the offsets of the partition's records in `locations`: the oldest
// that is kept, and one past the newest.
type Bounds struct{ First, End int64 }

// Partition returns the partition as of the resume offset of its last
// checkpoint, -1 if it has none.
// It goes on behind its Offset. State of an earlier epoch is dropped, because
// what it knew may contradict the log: the partition goes on where that state
// stood, as far as the log still reaches.
func (l *Loader) Partition(resume int64, at Bounds) (*Partition, error) {
	p := l.partition
	switch {
	case resume < 0 && !l.restored && len(p.vehicles) == 0:
		p.offset = at.First - 1
		return p, nil
	case !l.restored:
		return nil, fmt.Errorf("the checkpoint at offset %d has %d vehicles and no state of the partition", resume, len(p.vehicles))
	case resume != p.offset+1:
		return nil, fmt.Errorf("the checkpoint resumes at offset %d, the state stands for the records before %d", resume, p.offset+1)
	case l.outdated:
		for id := range p.vehicles {
			p.forgotten = append(p.forgotten, id)
		}
		slices.Sort(p.forgotten)
		p.assertions = reserve.Assertions{}
		clear(p.vehicles)
		p.offset = max(min(resume, at.End), at.First) - 1
		return p, nil
	case resume > at.End:
		return nil, fmt.Errorf("the checkpoint resumes at offset %d, the log ends at %d: the log was shortened, raise its epoch to go on without the state", resume, at.End)
	}
	p.scheduleAll()
	p.countAll()
	return p, nil
}

// scheduleAll puts all vehicles into an empty heap of timers.
func (p *Partition) scheduleAll() {
	p.timers.heap = make([]timer, 0, len(p.vehicles))
	for _, v := range p.vehicles {
		p.timers.heap = append(p.timers.heap, timer{p.timerMS(v), v})
	}
	slices.SortFunc(p.timers.heap, func(a, b timer) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for i := range p.timers.heap {
		p.timers.heap[i].vehicle.timerSlot = int32(i)
	}
}
