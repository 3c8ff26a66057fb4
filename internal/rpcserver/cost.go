package rpcserver

import (
	"container/list"
	"context"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

const (
	// cheapCall is the estimate below which a call is not charged: what bounds
	// those is how many there can be.
	cheapCall = time.Millisecond
	// costBurst is how much may be used at once, in seconds of the rate.
	costBurst = 4.0
	// maxPrincipals bounds those whose use is remembered. When there are more, the
	// one that was charged least recently is forgotten.
	maxPrincipals = 10_000
)

// costs admits calls by their estimated cost: a token bucket of CPU time for all
// callers together, and one for each principal. It is safe for concurrent use.
type costs struct {
	now       func() time.Time
	rate      float64 // CPU seconds a second, of all
	shareRate float64 // of one principal

	mu     sync.Mutex
	all    bucket
	byName map[string]*list.Element // of *account
	recent *list.List               // of *account, charged most recently first
}

// bucket is how much may still be used: CPU seconds, negative when more was used
// than estimated.
type bucket struct {
	left  float64
	since time.Time
}

type account struct {
	name string
	bucket
}

func newCosts(c *Config, now func() time.Time) *costs {
	rate := c.CallCPUs
	if rate == 0 {
		rate = float64(runtime.NumCPU()) / 2
	}
	k := &costs{now: now, rate: rate, shareRate: rate * c.PrincipalShare, byName: map[string]*list.Element{}, recent: list.New()}
	k.all = bucket{rate * costBurst, now()}
	return k
}

// fill adds what has come since, and returns how long it takes until something
// may be used.
func (b *bucket) fill(now time.Time, rate float64) (wait time.Duration) {
	b.left = min(b.left+rate*max(0, now.Sub(b.since).Seconds()), rate*costBurst)
	b.since = now
	if b.left > 0 {
		return 0
	}
	return time.Duration(-b.left / rate * float64(time.Second))
}

// take charges a principal, or returns how long it has to wait.
func (k *costs) take(name string, cost time.Duration) (wait time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	its := k.account(name, now)
	if wait = max(k.all.fill(now, k.rate), its.fill(now, k.shareRate)); wait > 0 {
		return wait, false
	}
	k.all.left -= cost.Seconds()
	its.left -= cost.Seconds()
	return 0, true
}

// settle charges what a call has cost beyond its estimate.
func (k *costs) settle(name string, more time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all.left -= more.Seconds()
	k.account(name, k.now()).left -= more.Seconds()
}

func (k *costs) account(name string, now time.Time) *account {
	if e := k.byName[name]; e != nil {
		k.recent.MoveToFront(e)
		return e.Value.(*account)
	}
	if k.recent.Len() >= maxPrincipals {
		oldest := k.recent.Back()
		delete(k.byName, k.recent.Remove(oldest).(*account).name)
	}
	a := &account{name, bucket{k.shareRate * costBurst, now}}
	k.byName[name] = k.recent.PushFront(a)
	return a
}

// charge admits a call by the estimate of its request.
func (s *Server) charge(ctx context.Context, req any) error {
	cost := s.estimate(req, nil)
	if cost < cheapCall {
		return nil
	}
	wait, ok := s.costs.take(auth.Principal(ctx), cost)
	if !ok {
		s.group.metrics.refused.WithLabelValues(s.role.Name, reasonCostExceeded).Inc()
		return rpcstatus.Error(codes.ResourceExhausted, rpcstatus.Reason{Domain: errorDomain, Name: reasonCostExceeded},
			"calls like this one cost more than the server or their caller may use at the moment", rpcstatus.RetryAfter(max(wait, 100*time.Millisecond)))
	}
	s.group.metrics.cost.WithLabelValues(s.role.Name).Add(cost.Seconds())
	return nil
}

// settle charges what an answer shows to have cost.
func (s *Server) settle(ctx context.Context, req, answer any) {
	cost := s.estimate(req, answer)
	if cost < cheapCall {
		return
	}
	s.costs.settle(auth.Principal(ctx), cost)
	s.group.metrics.cost.WithLabelValues(s.role.Name).Add(cost.Seconds())
}

func (s *Server) estimate(req, answer any) time.Duration {
	if s.role.Cost == nil {
		return 0
	}
	return s.role.Cost(req, answer)
}
