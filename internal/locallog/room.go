package locallog

import (
	"context"
	"sync"
	"sync/atomic"
)

// room bounds the bytes of appends that wait. Taking is one atomic addition
// while there is room; who finds none waits in line.
type room struct {
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

// take waits until cost fits, until ctx is done or until gone is closed. More
// than the limit fits when nothing else is there.
func (r *room) take(ctx context.Context, cost int64, gone <-chan struct{}) error {
	if r.waiting.Load() == 0 && r.fits(cost) {
		return nil
	}
	p := &place{cost: cost, granted: make(chan struct{})}
	r.mu.Lock()
	r.waiting.Add(1) // from here on give looks at the line
	r.line = append(r.line, p)
	r.grant()
	r.mu.Unlock()
	select {
	case <-p.granted:
		return nil
	case <-ctx.Done():
		if r.leave(p) {
			return ctx.Err()
		}
	case <-gone:
		if r.leave(p) {
			return errGone
		}
	}
	return nil // granted in the same moment
}

// fits takes the cost if there is room.
func (r *room) fits(cost int64) bool {
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

// give returns what was taken.
func (r *room) give(cost int64) {
	r.used.Add(-cost)
	if r.waiting.Load() > 0 {
		r.mu.Lock()
		r.grant()
		r.mu.Unlock()
	}
}

// grant lets the first in line in, as many as fit; mu is held.
func (r *room) grant() {
	for len(r.line) > 0 && r.fits(r.line[0].cost) {
		close(r.line[0].granted)
		r.line = r.line[1:]
		r.waiting.Add(-1)
	}
}

// leave takes a place out of the line, or says that it was granted.
func (r *room) leave(p *place) bool {
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
