package step

import (
	"fmt"
	"slices"
)

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
