// Package owners shares the partitions of a group out among its members within
// one process. The embedded log and the log in memory use it; on Kafka the
// brokers do this work.
//
// A partition has at most one holder that has not lost it. When a member
// joins or leaves, holders whose partitions move are asked to hand over, and
// the next holder starts when they have returned; a holder that takes longer
// than the hand-over timeout loses the partition.
package owners

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// DefaultHandover is how long a holder may take to hand over.
const DefaultHandover = 30 * time.Second

// Holding is the right to one partition, as long as it lasts.
type Holding struct {
	// Partition is what is held.
	Partition int32
	// Revoked is closed when the partition is to be handed over.
	Revoked <-chan struct{}

	revoked   chan struct{}
	revoking  bool
	gone      chan struct{} // closed when the partition is lost
	lose      context.CancelFunc
	loseTimer *time.Timer
	owner     *member
}

// Lost reports whether the group has taken the partition away from its holder.
func (h *Holding) Lost() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

// Serve handles one holding until it is revoked or ctx is done.
type Serve func(ctx context.Context, h *Holding) error

// Group shares out partitions 0 to n-1. It is safe for concurrent use.
type Group struct {
	handover time.Duration

	mu      sync.Mutex
	members []*member  // in the order of joining
	holders []*Holding // by partition; nil where nobody serves
}

// member is one Join call. Its group's mutex guards it.
type member struct {
	serve    Serve
	assigned *eventlog.Assignment
	ctx      context.Context // ends never by itself: claims outlast the caller's ctx
	running  sync.WaitGroup
	err      error
	failed   chan struct{} // closed at the first error
}

// New returns a group over n partitions. A holder that has been asked to hand
// over loses its partition after the given time.
func New(n int32, handover time.Duration) *Group {
	return &Group{handover: handover, holders: make([]*Holding, n)}
}

// Join takes part in the group and calls serve, in a goroutine of its own, for
// every partition that falls to this member. It returns when all of those have
// returned: nil after ctx is done, eventlog.ErrClosed after gone is closed
// (every holding is lost then), or the first error of serve. It sets assigned
// whenever the member's share changes.
func (g *Group) Join(ctx context.Context, gone <-chan struct{}, assigned *eventlog.Assignment, serve Serve) error {
	m := &member{serve: serve, assigned: assigned, ctx: context.WithoutCancel(ctx), failed: make(chan struct{})}
	g.mu.Lock()
	g.members = append(g.members, m)
	g.balance()
	g.mu.Unlock()

	var closed error
	select {
	case <-ctx.Done():
		g.leave(m, false)
	case <-m.failed:
		g.leave(m, false)
	case <-gone:
		closed = eventlog.ErrClosed
		g.leave(m, true)
	}
	// A log that closes while its owners are handing over ends them too.
	done := make(chan struct{})
	go func() { m.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-gone:
		g.leave(m, true)
		<-done
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	return closed
}

// Depose takes every partition away from its holder at once, as a group does
// with a member that it has had no heartbeat of for too long.
func (g *Group) Depose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.holders {
		if h != nil {
			g.drop(h)
		}
	}
	g.balance()
}

// leave removes a member; its holdings are asked back, or lost at once.
func (g *Group) leave(m *member, lost bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(m)
	if lost {
		for _, h := range g.holders {
			if h != nil && h.owner == m {
				g.drop(h)
			}
		}
	}
	g.balance()
}

// balance moves towards partition p being held by member p mod their number.
// Those that are held by another are asked back; the free ones are given.
func (g *Group) balance() {
	for p := range g.holders {
		var target *member
		if len(g.members) > 0 {
			target = g.members[p%len(g.members)]
		}
		h := g.holders[p]
		switch {
		case h == nil && target != nil:
			g.give(int32(p), target)
		case h != nil && h.owner != target && !h.revoking:
			h.revoking = true
			close(h.revoked)
			h.loseTimer = time.AfterFunc(g.handover, func() { g.expire(h) })
		}
	}
	for _, m := range g.members {
		share := 0
		for _, h := range g.holders {
			if h != nil && h.owner == m && !h.revoking {
				share++
			}
		}
		m.assigned.Set(share)
	}
}

func (g *Group) give(p int32, m *member) {
	ctx, cancel := context.WithCancel(m.ctx)
	revoked := make(chan struct{})
	h := &Holding{Partition: p, Revoked: revoked, revoked: revoked, gone: make(chan struct{}), lose: cancel, owner: m}
	g.holders[p] = h
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		g.ended(h, m.serve(ctx, h))
	}()
}

// ended takes note that the holder's serve call has returned.
func (g *Group) ended(h *Holding, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h.lose()
	if h.Lost() {
		return // its result no longer counts
	}
	if h.loseTimer != nil {
		h.loseTimer.Stop()
	}
	if err == nil && !h.revoking {
		err = errors.New("serve returned before its claim was revoked")
	}
	g.holders[h.Partition] = nil
	if err != nil {
		g.fail(h.owner, fmt.Errorf("serve partition %d: %w", h.Partition, err))
	}
	g.balance()
}

// fail ends a member with its first error. The member is out of the group at
// once, so that a failed partition does not come back to it.
func (g *Group) fail(m *member, err error) {
	if m.err != nil {
		return
	}
	m.err = err
	close(m.failed)
	g.remove(m)
}

func (g *Group) remove(m *member) {
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
}

func (g *Group) expire(h *Holding) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders[h.Partition] == h {
		g.drop(h)
		g.balance()
	}
}

// drop takes a partition from its holder without waiting for it.
func (g *Group) drop(h *Holding) {
	if h.loseTimer != nil {
		h.loseTimer.Stop()
	}
	close(h.gone)
	h.lose()
	g.holders[h.Partition] = nil
}
