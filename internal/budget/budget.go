// Package budget bounds what unfinished work of strangers may hold, such as
// requests that are still being read. When the budget is used up, new work takes
// the place of the oldest of the owner that holds most; among equals, of the oldest.
//
// Imported by the servers; imports nothing of ours.
package budget

import (
	"container/list"
	"sync"
	"time"
)

// Pool is a budget in bytes. It is safe for concurrent use.
type Pool struct {
	limit int64
	grace time.Duration

	mu      sync.Mutex
	used    int64
	open    *list.List // of *Lease, oldest first
	taken   uint64     // leases taken so far
	owners  map[any]*owner
	evicted int64
	refused int64
}

// owner is who holds leases, such as a connection.
type owner struct {
	key   any
	bytes int64
	open  *list.List // of *Lease, oldest first
}

// oldest is the owner's oldest lease; an owner in the pool has one.
func (o *owner) oldest() *Lease { return o.open.Front().Value.(*Lease) }

// New returns a pool of limit bytes. Work is safe for grace from giving way to
// an owner that holds as much.
func New(limit int64, grace time.Duration) *Pool {
	return &Pool{limit: limit, grace: grace, open: list.New(), owners: map[any]*owner{}}
}

// Lease is a part of a pool that unfinished work holds.
type Lease struct {
	pool  *Pool
	owner *owner
	since time.Time
	order uint64 // among all leases ever taken
	evict func()
	bytes int64
	place *list.Element // nil once released or evicted
	among *list.Element // its place among its owner's
}

// Take takes bytes for new work of the owner key, which must be comparable.
// evict is called, at most once and without locks, when the work is to give way
// or has taken too long; it must end the work soon and not block. Take returns
// nil when nobody has to give way.
func (p *Pool) Take(key any, bytes int64, evict func()) *Lease {
	p.mu.Lock()
	o := p.owners[key]
	if o == nil {
		o = &owner{key: key, open: list.New()}
	}
	p.taken++
	l := &Lease{pool: p, owner: o, since: time.Now(), order: p.taken, evict: evict}
	yielding, ok := p.growLocked(l, bytes)
	if ok {
		p.owners[key] = o
		l.place, l.among = p.open.PushBack(l), o.open.PushBack(l)
	}
	p.mu.Unlock()
	yield(yielding)
	if !ok {
		return nil
	}
	return l
}

// Grow takes more bytes for work that holds some. It returns false when nobody
// has to give way, or the lease has been released or evicted.
func (l *Lease) Grow(bytes int64) bool {
	p := l.pool
	p.mu.Lock()
	if l.place == nil {
		p.mu.Unlock()
		return false
	}
	yielding, ok := p.growLocked(l, bytes)
	p.mu.Unlock()
	yield(yielding)
	return ok
}

func yield(leases []*Lease) {
	for _, l := range leases {
		l.evict()
	}
}

// growLocked charges l with bytes, if need be by evicting others.
func (p *Pool) growLocked(l *Lease, bytes int64) (yielding []*Lease, ok bool) {
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

// yieldingLocked is the lease that gives way to l, whose owner is to hold so
// many bytes. There are as many owners as leases at most.
func (p *Pool) yieldingLocked(l *Lease, bytes int64) *Lease {
	var most *owner
	for _, o := range p.owners {
		if most == nil || o.bytes > most.bytes || o.bytes == most.bytes && o.oldest().order < most.oldest().order {
			most = o
		}
	}
	if most != nil && most != l.owner && most.bytes > bytes {
		return most.oldest()
	}
	if front := p.open.Front(); front != nil && front.Value != l && time.Since(front.Value.(*Lease).since) >= p.grace {
		return front.Value.(*Lease)
	}
	return nil
}

// Expire evicts what is older than age.
func (p *Pool) Expire(age time.Duration) {
	var late []*Lease
	p.mu.Lock()
	for e := p.open.Front(); e != nil; e = p.open.Front() {
		l := e.Value.(*Lease)
		if time.Since(l.since) < age {
			break
		}
		p.releaseLocked(l)
		p.evicted++
		late = append(late, l)
	}
	p.mu.Unlock()
	yield(late)
}

// Release gives a lease back, once.
func (l *Lease) Release() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.pool.releaseLocked(l)
}

func (p *Pool) releaseLocked(l *Lease) {
	if l.place == nil {
		return
	}
	p.open.Remove(l.place)
	l.owner.open.Remove(l.among)
	l.place, l.among = nil, nil
	p.used -= l.bytes
	if l.owner.bytes -= l.bytes; l.owner.open.Len() == 0 {
		delete(p.owners, l.owner.key)
	}
}

// Stats are the bytes in use, and how often work was evicted or refused.
func (p *Pool) Stats() (used, evicted, refused int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.evicted, p.refused
}
