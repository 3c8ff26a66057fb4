package locallog

import (
	"context"
	"sync"
	"sync/atomic"
)

// capacity bounds the bytes of appends that wait. Taking is one atomic addition
// while there is some left; who finds none waits in line.
type capacity struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int64

	mu   sync.Mutex
	line []*place // oldest first
}

type place struct {
	cost    int64
	granted chan struct{}
}

// acquire waits until cost fits, until ctx is done or until stopped is closed. More
// than the limit fits when nothing else is there.
func (r *capacity) acquire(ctx context.Context, cost int64, stopped <-chan struct{}) error {
	if r.waiting.Load() == 0 && r.fits(cost) {
		return nil
	}
	p := &place{cost: cost, granted: make(chan struct{})}
	r.queue(p)
	select {
	case <-p.granted:
		return nil
	case <-ctx.Done():
		if r.leave(p) {
			return ctx.Err()
		}
	case <-stopped:
		if r.leave(p) {
			return errStopped
		}
	}
	return nil // granted in the same moment
}

// fits takes the cost if there is capacity for it.
func (r *capacity) fits(cost int64) bool {
	for {
		used := r.used.Load()
		if used > 0 && used+cost > r.limit {
			return false
		}
		if r.used.CompareAndSwap(used, used+cost) {
			return true
		}
	}
}

// release returns what was acquired.
func (r *capacity) release(cost int64) {
	r.used.Add(-cost)
	if r.waiting.Load() > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.grant()
	}
}

// queue puts a place at the end of the line.
func (r *capacity) queue(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting.Add(1) // from here on release looks at the line
	r.line = append(r.line, p)
	r.grant()
}

// grant lets the first in line in, as many as fit; mu is held.
func (r *capacity) grant() {
	for len(r.line) > 0 && r.fits(r.line[0].cost) {
		close(r.line[0].granted)
		r.line = r.line[1:]
		r.waiting.Add(-1)
	}
}

// leave takes a place out of the line, or reports that it was granted.
func (r *capacity) leave(p *place) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.line {
		if other == p {
			r.line = append(r.line[:i:i], r.line[i+1:]...)
			r.waiting.Add(-1)
			r.grant() // who stood behind may fit
			return true
		}
	}
	return false
}
