package drill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/starling-fleet/starling/loadtest/drill/check"
)

// Cluster is a Kafka of several brokers, numbered from 0.
type Cluster interface {
	// Kill ends a broker with SIGKILL.
	Kill(broker int) error
	// Restart starts it again.
	Restart(broker int) error
	// WaitReady returns when every broker answers and every replica is in sync.
	WaitReady(ctx context.Context) error
}

const (
	// plannedBar and killedBar are what a phase may cost from a fix to its being
	// found.
	plannedBar, killedBar = 5 * time.Second, 15 * time.Second
	// away is how long what was killed stays away: longer than its session.
	away = 20 * time.Second
	// calm is how long fixes must be found within a second before the next phase.
	calm = 2 * time.Second
	// recovery is how long it may take until they are.
	recovery = 2 * time.Minute
)

// rollout carries out the plan: what an operator does, and what befalls a
// cluster.
type rollout struct {
	opts    *Options
	roles   []*role
	spare   *role // a tracker that is added and removed
	beacons *beacons
	logf    func(string, ...any)

	gaps     []Gap
	findings check.Findings
}

// spareTracker is the name of the tracker that is added and removed.
const spareTracker = "tracker-3"

func (d *drill) newRollout(f *fleet) *rollout {
	b, vehicles := newBeacons(&d.opts, d.matchers)
	f.light(vehicles)
	r := &rollout{opts: &d.opts, roles: d.processes, beacons: b, logf: d.logf}
	for _, p := range d.processes {
		if p.name == spareTracker {
			r.spare = p
		}
	}
	return r
}

// follow goes through the plan while the beacons are looked for.
func (r *rollout) follow(ctx context.Context) error {
	looking, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.beacons.run(looking) })
	defer wg.Wait()
	defer end()
	return r.run(ctx)
}

type phase struct {
	name string
	bar  time.Duration
	do   func(context.Context) error
}

func (r *rollout) plan() []phase {
	phases := []phase{{"undisturbed", 0, func(ctx context.Context) error { sleep(ctx, calm); return nil }}}
	if r.opts.Cluster != nil {
		for broker := range r.opts.KafkaBrokers {
			phases = append(phases, r.killBroker(broker)...)
		}
		phases = append(phases, r.killTrackers()...)
	}
	phases = append(phases,
		phase{"a tracker added", plannedBar, func(ctx context.Context) error { return r.start(ctx, r.spare) }},
		phase{"a tracker removed", plannedBar, func(ctx context.Context) error { return r.stop(ctx, r.spare) }},
	)
	for _, kind := range []string{"matcher", "tracker", "ingest"} {
		phases = append(phases, phase{"every " + kind + " restarted, one after another", plannedBar, func(ctx context.Context) error {
			for _, p := range r.of(kind) {
				if err := errors.Join(r.stop(ctx, p), r.start(ctx, p)); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return phases
}

func (r *rollout) killTrackers() []phase {
	trackers := r.of("tracker")
	return []phase{
		{"a tracker killed and started again", killedBar, func(ctx context.Context) error {
			trackers[0].Kill()
			sleep(ctx, time.Second)
			return r.start(ctx, trackers[0])
		}},
		{"a tracker killed", killedBar, func(ctx context.Context) error {
			trackers[1].Kill()
			sleep(ctx, away)
			return nil
		}},
		{"the killed tracker back", plannedBar, func(ctx context.Context) error { return r.start(ctx, trackers[1]) }},
	}
}

func (r *rollout) killBroker(broker int) []phase {
	return []phase{
		{fmt.Sprintf("broker %d killed", broker+1), killedBar, func(ctx context.Context) error {
			if err := r.opts.Cluster.Kill(broker); err != nil {
				return err
			}
			sleep(ctx, away)
			return nil
		}},
		{fmt.Sprintf("broker %d back", broker+1), plannedBar, func(ctx context.Context) error {
			if err := r.opts.Cluster.Restart(broker); err != nil {
				return err
			}
			return r.opts.Cluster.WaitReady(ctx)
		}},
	}
}

// run goes through the plan. An error means that the plan could not be carried
// out; what it cost is in gaps.
func (r *rollout) run(ctx context.Context) error {
	if err := r.settle(ctx, "the start"); err != nil {
		return err
	}
	for _, p := range r.plan() {
		r.beacons.take()
		r.logf("%s", p.name)
		if err := p.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := r.settle(ctx, p.name); err != nil {
			return err
		}
		gap := Gap{Phase: p.name, Longest: r.beacons.take(), Bar: time.Duration(float64(p.bar) * r.opts.slack())}
		gap.judge(&r.findings)
		r.gaps = append(r.gaps, gap)
		r.logf("%s: %v from a fix to its being found at the longest", p.name, round(gap.Longest))
	}
	return ctx.Err()
}

func (r *rollout) settle(ctx context.Context, after string) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	if err := r.beacons.settle(ctx, calm); err != nil {
		return fmt.Errorf("%v after %s: %w", recovery, after, err)
	}
	return nil
}

func (r *rollout) of(kind string) (roles []*role) {
	for _, p := range r.roles {
		if p.role == kind && p != r.spare {
			roles = append(roles, p)
		}
	}
	return roles
}

func (r *rollout) stop(ctx context.Context, p *role) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	p.resting = true
	began := time.Now()
	err := p.Stop(ctx)
	r.logf("%s stopped in %v", p.name, round(time.Since(began)))
	return err
}

func (r *rollout) start(ctx context.Context, p *role) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := p.Start(); err != nil {
		return err
	}
	p.resting = false
	took, err := p.WaitReady(ctx)
	r.logf("%s serves after %v", p.name, round(took))
	return err
}
