// Package budget bounds what unfinished work of strangers may hold, such as
// requests that are still being read. When the budget is used up, new work takes
// the place of the oldest of the owner that holds most; among equals, of the oldest.
//
// Imported by the servers; imports nothing of ours.
package budget

import (
	"sync"
	"time"
)

// Pool is a budget in bytes. It is safe for concurrent use.
type Pool struct {
	limit int64
	grace time.Duration

	mu      sync.Mutex
	used    int64
	open    Chain[Lease]
	taken   uint64 // leases taken so far
	owners  map[any]*owner
	spare   *owner // one that holds nothing, to be used again
	evicted int64
	refused int64
}

// owner is who holds leases, such as a connection.
type owner struct {
	key   any
	bytes int64
	open  Chain[Lease] // an owner in the pool has one at least
}

// New returns a pool of limit bytes. Work is safe for grace from giving way to
// an owner that holds as much.
func New(limit int64, grace time.Duration) *Pool {
	return &Pool{limit: limit, grace: grace, open: NewChain(inPool), owners: map[any]*owner{}}
}

// Lease is a part of a pool that unfinished work holds.
type Lease struct {
	pool            *Pool
	owner           *owner
	since           time.Time
	order           uint64 // among all leases ever taken
	work            Work
	bytes           int64
	held            bool         // not released or evicted
	ofPool, ofOwner Links[Lease] // in the pool's chain and in the owner's
}

// Work is what holds a lease.
type Work interface {
	// Evict is called, at most once and without locks, when the work is to give
	// way or has taken too long; it must end the work soon and not block.
	Evict()
	// Ended reports whether the work has ended, so that its lease may be taken
	// back. It must not block.
	Ended() bool
}

// evictFunc is work that gives its lease back by itself when it ends.
type evictFunc func()

func (f evictFunc) Evict()      { f() }
func (f evictFunc) Ended() bool { return false }

// Take takes bytes for new work of the owner key, which must be comparable.
// evict is as Work's. Take returns nil when nobody has to give way.
func (p *Pool) Take(key any, bytes int64, evict func()) *Lease {
	l := &Lease{}
	if !p.TakeFor(evictFunc(evict), l, key, bytes) {
		return nil
	}
	return l
}

// TakeFor is Take for work that embeds its lease, which is zero before. It
// returns false when nobody has to give way.
func (p *Pool) TakeFor(work Work, l *Lease, key any, bytes int64) bool {
	yielding, ok := p.takeFor(work, l, key, bytes)
	yield(yielding)
	return ok
}

func (p *Pool) takeFor(work Work, l *Lease, key any, bytes int64) (yielding []*Lease, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.owners[key]
	if o == nil {
		if o, p.spare = p.spare, nil; o == nil {
			o = &owner{open: NewChain(inOwner)}
		}
	}
	p.taken++
	l.pool, l.owner, l.since, l.order, l.work = p, o, time.Now(), p.taken, work
	yielding, ok = p.growLocked(l, bytes)
	if ok {
		if p.spare == o { // its other leases have just given way
			p.spare = nil
		}
		o.key, p.owners[key] = key, o
		l.held = true
		p.open.Push(l)
		o.open.Push(l)
	}
	return yielding, ok
}

// Grow takes more bytes for work that holds some. It returns false when nobody
// has to give way, or the lease has been released or evicted.
func (l *Lease) Grow(bytes int64) bool {
	yielding, ok := l.grow(bytes)
	yield(yielding)
	return ok
}

func (l *Lease) grow(bytes int64) (yielding []*Lease, ok bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if !l.held {
		return nil, false
	}
	return l.pool.growLocked(l, bytes)
}

func yield(leases []*Lease) {
	for _, l := range leases {
		l.work.Evict()
	}
}

// growLocked charges l with bytes, if need be by evicting others.
func (p *Pool) growLocked(l *Lease, bytes int64) (yielding []*Lease, ok bool) {
	if p.used+bytes > p.limit {
		p.reapLocked(l)
	}
	for p.used+bytes > p.limit {
		y := p.yieldingLocked(l, l.owner.bytes+bytes)
		if y == nil {
			p.refused++
			return yielding, false
		}
		p.releaseLocked(y)
		p.evicted++
		yielding = append(yielding, y)
	}
	p.used += bytes
	l.bytes += bytes
	l.owner.bytes += bytes
	return yielding, true
}

// reapLocked takes back what ended work still holds, except l.
func (p *Pool) reapLocked(except *Lease) {
	for l, next := p.open.Oldest(), (*Lease)(nil); l != nil; l = next {
		next = l.ofPool.Newer()
		if l != except && l.work.Ended() {
			p.releaseLocked(l)
		}
	}
}

// yieldingLocked is the lease that gives way to l, whose owner is to hold so
// many bytes. There are as many owners as leases at most.
func (p *Pool) yieldingLocked(l *Lease, bytes int64) *Lease {
	var most *owner
	for _, o := range p.owners {
		if most == nil || o.bytes > most.bytes || o.bytes == most.bytes && o.open.Oldest().order < most.open.Oldest().order {
			most = o
		}
	}
	if most != nil && most != l.owner && most.bytes > bytes {
		return most.open.Oldest()
	}
	if front := p.open.Oldest(); front != nil && front != l && time.Since(front.since) >= p.grace {
		return front
	}
	return nil
}

// Expire evicts what is older than age, and takes back what ended work still
// holds.
func (p *Pool) Expire(age time.Duration) {
	yield(p.expire(age))
}

func (p *Pool) expire(age time.Duration) (late []*Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reapLocked(nil)
	for l := p.open.Oldest(); l != nil && time.Since(l.since) >= age; l = p.open.Oldest() {
		p.releaseLocked(l)
		p.evicted++
		late = append(late, l)
	}
	return late
}

// Release gives a lease back; again, it does nothing.
func (l *Lease) Release() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.pool.releaseLocked(l)
}

func (p *Pool) releaseLocked(l *Lease) {
	if !l.held {
		return
	}
	p.open.Remove(l)
	l.owner.open.Remove(l)
	l.held = false
	p.used -= l.bytes
	if l.owner.bytes -= l.bytes; l.owner.open.Oldest() == nil {
		delete(p.owners, l.owner.key)
		l.owner.key, p.spare = nil, l.owner
	}
}

// Stats are the bytes in use, and how often work was evicted or refused.
func (p *Pool) Stats() (used, evicted, refused int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.evicted, p.refused
}

func inPool(l *Lease) *Links[Lease]  { return &l.ofPool }
func inOwner(l *Lease) *Links[Lease] { return &l.ofOwner }
