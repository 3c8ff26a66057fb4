// Package feed notifies calls that watch which vehicles, or counts, have changed. A
// change is written once, however many watch, and the writer never waits for a
// watcher. It also keeps what the clients of WatchArea were sent, beyond their
// calls. It is imported by the matcher.
package feed

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A feed remembers this many changes at first and at most.
	minFeed, maxFeed = 8, 1 << 14
	// feedSpan is for how long a feed should remember changes: longer than
	// most calls pause between updates.
	feedSpan = 2 * time.Second
)

// Feed holds the newest changes of something, by number, in a ring. A change is
// written once, however many watch; each reads from where it left off.
type Feed[T any] struct {
	next atomic.Uint64 // number of the next change; written under mu

	mu      sync.Mutex
	ring    []T       // its length is 0 or a power of two
	oldest  uint64    // number of the oldest change in it
	began   time.Time // when the ring was last begun anew
	waiters []*Waiter
	now     func() time.Time
}

// Waiter is a call that reads feeds. All but its own call use only notify and
// force.
type Waiter struct {
	// Wake holds at most one wake-up.
	Wake chan struct{}
	// armed is true while the call waits and wants to be woken, once.
	armed atomic.Bool
	// forced is true when it shall look although nothing has changed.
	forced atomic.Bool
}

// NewWaiter returns a waiter that has nothing to read.
func NewWaiter() Waiter { return Waiter{Wake: make(chan struct{}, 1)} }

// Arm reports whether the call has to wait: it does not if it was forced to look or changed
// returns that there is something to read.
func (w *Waiter) Arm(changed func() bool) bool {
	w.armed.Store(true)
	if w.forced.Load() || changed() {
		w.armed.Store(false)
		return false
	}
	return true
}

// notify wakes a call that waits.
func (w *Waiter) notify() {
	if w.armed.Load() && w.armed.CompareAndSwap(true, false) {
		select {
		case w.Wake <- struct{}{}:
		default:
		}
	}
}

// force has the call look whether or not something has changed for it.
func (w *Waiter) force() {
	w.forced.Store(true)
	w.notify()
}

// WakeAll has all readers look, whether or not something has changed.
func (f *Feed[T]) WakeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiters {
		w.force()
	}
}

// Join adds a reader and returns the number of the first change that it reads.
func (f *Feed[T]) Join(w *Waiter) (next uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = append(f.waiters, w)
	return f.next.Load()
}

// Leave takes a reader off and reports whether it was the last.
func (f *Feed[T]) Leave(w *Waiter) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.waiters) - 1
	for i, one := range f.waiters {
		if one == w {
			f.waiters[i] = f.waiters[n]
			f.waiters[n] = nil
			f.waiters = f.waiters[:n]
			break
		}
	}
	return n == 0
}

// Add writes a change and wakes those who wait for one.
func (f *Feed[T]) Add(change T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.next.Load()
	if size := uint64(len(f.ring)); size == 0 || n&(size-1) == 0 {
		f.nextRound(n)
	}
	f.ring[n&uint64(len(f.ring)-1)] = change
	f.oldest = max(f.oldest, n+1-min(n+1, uint64(len(f.ring))))
	f.next.Store(n + 1)
	for _, w := range f.waiters {
		w.notify()
	}
}

// nextRound begins another round of the ring, which is doubled if the last round
// took less than feedSpan.
func (f *Feed[T]) nextRound(n uint64) {
	now, size := f.now(), len(f.ring)
	fast := now.Sub(f.began) < feedSpan
	f.began = now
	switch {
	case size == 0:
		f.ring = make([]T, minFeed)
	case fast && size < maxFeed:
		grown := make([]T, 2*size)
		for i := f.oldest; i < n; i++ {
			grown[i&uint64(2*size-1)] = f.ring[i&uint64(size-1)]
		}
		f.ring = grown
	}
}

// Since appends to dst the changes from a number on, which it moves behind the
// last. It is false when some are not remembered any more.
func (f *Feed[T]) Since(from *uint64, dst []T) (changes []T, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.next.Load()
	all = *from >= f.oldest
	for n := max(*from, f.oldest); n < next; n++ {
		dst = append(dst, f.ring[n&uint64(len(f.ring)-1)])
	}
	*from = next
	return dst, all
}

// Changed returns whether there are changes from a number on.
func (f *Feed[T]) Changed(from uint64) bool { return f.next.Load() != from }

// Looked has the waiter wait again after it was forced to look.
func (w *Waiter) Looked() { w.forced.Store(false) }

// New returns an empty feed that reads a clock.
func New[T any](now func() time.Time) *Feed[T] { return &Feed[T]{now: now} }
