package modeltest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/tracker"
)

// node is one process: a log client of its own and some of the roles.
type node struct {
	world *world
	name  string
	log   *memlog.Log
	// ingest and matcher are nil where the process does not have the role.
	ingest     *ingest.Server
	hasTracker bool
	matcher    *matcher.Matcher
	// clockSkew is what the process's wall clock is off by.
	clockSkew time.Duration
	// revokeDelay is how long an owner goes on after it was replaced.
	revokeDelay atomic.Int64
	failedAt    sync.Map // point -> time.Time

	ctx     context.Context
	cancel  context.CancelFunc
	dieOnce sync.Once
	dead    chan struct{}
	running sync.WaitGroup
	ended   atomic.Bool // a role has ended by itself
}

// roles are what a process runs.
type roles struct{ ingest, tracker, matcher bool }

// start starts a process.
func (w *world) start(r roles, clockSkew time.Duration) *node {
	w.started++
	n := &node{world: w, name: string(rune('A' + w.started - 1)), hasTracker: r.tracker, clockSkew: clockSkew, dead: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.log = memlog.Open(w.store, n.options(w.maxBatch()))
	quiet := slog.New(slog.DiscardHandler)
	now := func() time.Time { return time.Now().Add(n.clockSkew) }
	var err error
	if r.ingest {
		n.ingest, err = ingest.New(w.cfg.ingest, ingest.Deps{Log: n.log, Partitions: partitions, Registerer: unregistered{}, Logger: quiet, Now: now})
		w.noError(err)
		n.run("ingest", n.ingest.Run)
	}
	if r.tracker {
		t, err := tracker.New(w.cfg.tracker, tracker.Deps{Log: &stubbornLog{n.log, n}, Registerer: unregistered{}, Logger: quiet})
		w.noError(err)
		n.run("tracker", t.Run)
	}
	if r.matcher {
		n.matcher, err = matcher.New(matcher.DefaultConfig(), matcher.Deps{Log: n.log, Registerer: unregistered{}, Logger: quiet, Now: now})
		w.noError(err)
		n.run("matcher", n.matcher.Run)
	}
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) run(role string, run func(context.Context) error) {
	n.running.Go(func() {
		err := run(n.ctx)
		n.ended.Store(true)
		switch {
		case err == nil, n.isDead():
		case role == "tracker" && errors.Is(err, errInjected):
			// It could not load: an operator's supervisor starts it again.
		default:
			n.world.fail("the %s of process %s ended: %v", role, n.name, err)
		}
	})
}

func (n *node) isDead() bool {
	select {
	case <-n.dead:
		return true
	default:
		return false
	}
}

// die ends the process as kill -9 does: nothing more leaves it.
func (n *node) die() {
	n.dieOnce.Do(func() {
		close(n.dead)
		n.log.Kill()
		n.cancel()
	})
}

// kill ends the process and waits until nothing of it is left.
func (n *node) kill() {
	n.die()
	n.gone()
}

// stop ends the process in good order.
func (n *node) stop() {
	n.cancel()
	n.gone()
}

func (n *node) gone() {
	n.running.Wait()
	n.dieOnce.Do(func() { close(n.dead) })
	_ = n.log.Close()
	n.world.forget(n)
}

// stubbornLog gives out claims whose holder learns late, or only by a refusal,
// that it was replaced, like a process that was asleep.
type stubbornLog struct {
	*memlog.Log
	node *node
}

func (l *stubbornLog) Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error {
	return l.Log.Own(ctx, spec, func(ctx context.Context, c eventlog.Claim) error {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		over := make(chan struct{})
		defer close(over)
		stop := context.AfterFunc(ctx, func() {
			select {
			case <-time.After(time.Duration(l.node.revokeDelay.Load())):
			case <-l.node.dead:
			case <-over:
			}
			cancel()
		})
		defer stop()
		return serve(own, c)
	})
}

// unregistered keeps metrics out of any registry.
type unregistered struct{}

func (unregistered) Register(prometheus.Collector) error  { return nil }
func (unregistered) MustRegister(...prometheus.Collector) {}
func (unregistered) Unregister(prometheus.Collector) bool { return true }
