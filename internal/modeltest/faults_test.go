package modeltest

import (
	"errors"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
)

var errInjected = errors.New("injected")

// effect is what a fault does to the step of the log that meets it.
type effect int

const (
	none  effect = iota
	fails        // the step answers an error
	kills        // the process dies in the middle of it
	hangs        // the step takes some time
)

// point is a place where a fault can be armed: a step of the log, before or
// after it has taken effect.
type point struct {
	step      step
	partition int32
	after     bool
}

// step is a topic that is appended to, or one of the two below.
type step string

const (
	load       step = "load"
	checkpoint step = "checkpoint"
)

// faults are armed by the world and met by whichever process comes first.
type faults struct {
	mu    sync.Mutex
	armed map[point]fault
	met   map[point]int
}

type fault struct {
	effect effect
	lasts  time.Duration
	// behind fails all that is queued behind the record, as a broker that
	// refuses a batch does; otherwise they are stored behind a gap.
	behind bool
}

func newFaults() *faults { return &faults{armed: map[point]fault{}, met: map[point]int{}} }

func (f *faults) arm(p point, a fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed[p] = a
}

func (f *faults) disarm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.armed)
}

func (f *faults) take(p point) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.armed[p]
	if ok {
		delete(f.armed, p)
		f.met[p]++
	}
	return a
}

// meet is what a step of the process's log does when it comes to a point.
func (n *node) meet(p point) error {
	w := n.world
	q, now := point{step: p.step, partition: p.partition}, time.Now()
	if last, ok := n.failedAt.Load(q); ok && now.Equal(last.(time.Time)) {
		return errInjected
	}
	a := w.faults.take(p)
	switch a.effect {
	case kills:
		n.die()
		return errInjected
	case hangs:
		select {
		case <-time.After(a.lasts):
		case <-n.dead:
		}
	case fails:
		if a.behind {
			n.failedAt.Store(q, now)
		}
		return errInjected
	}
	return nil
}

// options are the hooks of the process's log.
func (n *node) options(maxBatch int) memlog.Options {
	w := n.world
	ofState := func(after bool) func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error {
		return func(_ eventlog.OwnSpec, partition int32, _ []eventlog.Record, _ int64) error {
			return n.meet(point{checkpoint, partition, after})
		}
	}
	return memlog.Options{
		Now:         func() time.Time { return time.Now().Add(time.Duration(w.stampSkew.Load())) },
		MayStepBack: true,
		MaxBatch:    maxBatch,
		BeforeAppend: func(topic string, partition int32, _ eventlog.Record) error {
			return n.meet(point{step(topic), partition, false})
		},
		AfterAppend: func(topic string, partition int32, rec eventlog.Stored) error {
			w.note(topic, partition, rec)
			return n.meet(point{step(topic), partition, true})
		},
		BeforeLoad:       func(_ eventlog.OwnSpec, partition int32) error { return n.meet(point{load, partition, false}) },
		BeforeCheckpoint: ofState(false),
		AfterCheckpoint:  ofState(true),
	}
}
