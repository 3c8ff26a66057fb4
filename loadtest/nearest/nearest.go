package nearest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// bench is one run of everything.
type bench struct {
	opts    Options
	fleets  uint64 // made so far
	redisOK float64
}

// Result is what was measured, and how.
type Result struct {
	Vehicles         int            `json:"vehicles"`
	UpdatesPerSecond int            `json:"updates_per_s"`
	Connections      int            `json:"connections"`
	SideM            float64        `json:"side_m"`
	RadiusM          float64        `json:"radius_m"`
	Results          int            `json:"results"`
	RedisPipeline    int            `json:"redis_pipeline"`
	Rounds           int            `json:"rounds"`
	Duration         time.Duration  `json:"duration_ns"`
	OpenLoop         float64        `json:"open_loop_per_s"`
	Layouts          []LayoutResult `json:"layouts"`
	Bars             []Bar          `json:"bars"`
}

// LayoutResult is what was measured with one layout of the fleet; each slice has
// one measurement a round.
type LayoutResult struct {
	Layout   string        `json:"layout"`
	Starling []Measurement `json:"starling"`
	Filtered []Measurement `json:"starling_filtered"`
	OpenLoop []Measurement `json:"starling_open_loop"`
	Redis    []Measurement `json:"redis"`
	// RedisOpenLoop is of the uniform layout only: elsewhere Redis can't sustain
	// the rate.
	RedisOpenLoop []Measurement `json:"redis_open_loop"`
	// StarlingBytes and RedisBytes are the processes' resident memory at the end
	// of the last round.
	StarlingBytes int64 `json:"starling_resident_bytes"`
	RedisBytes    int64 `json:"redis_resident_bytes"`
}

// Run measures; nothing else should run on the machine. Every round starts both
// servers again, one after the other, and they change places every round.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := opts.Validate(); err != nil {
		return Result{}, fmt.Errorf("nearest: %w", err)
	}
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	b := &bench{opts: opts, redisOK: opts.OpenLoopPerSecond}
	res := Result{
		Vehicles: opts.Vehicles, UpdatesPerSecond: opts.UpdatesPerSecond, Connections: opts.Connections,
		SideM: opts.SideM, RadiusM: opts.RadiusM, Results: opts.Results, RedisPipeline: opts.RedisPipeline,
		Rounds: opts.Rounds, Duration: opts.Duration,
	}
	layouts, err := opts.layouts()
	if err != nil {
		return res, err
	}
	if b.redisOK == 0 {
		if err := b.calibrate(ctx); err != nil {
			return res, fmt.Errorf("nearest: what can Redis sustain: %w", err)
		}
	}
	res.OpenLoop = b.redisOK
	for _, l := range layouts {
		res.Layouts = append(res.Layouts, LayoutResult{Layout: l.name})
	}
	for round := range opts.Rounds {
		for i, l := range layouts {
			opts.Progress(fmt.Sprintf("round %d of %d, %s", round+1, opts.Rounds, l.name))
			if err := b.round(ctx, round, l, &res.Layouts[i]); err != nil {
				return res, fmt.Errorf("nearest: %s: %w", l.name, err)
			}
		}
	}
	res.Bars = res.bars()
	return res, nil
}

func (b *bench) round(ctx context.Context, round int, l layout, to *LayoutResult) error {
	steps := []func() error{
		func() error { return b.roundOfStarling(ctx, round, l, to) },
		func() error { return b.roundOfRedis(ctx, l, to) },
	}
	if round%2 == 1 {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) roundOfStarling(ctx context.Context, round int, l layout, to *LayoutResult) error {
	return b.with(ctx, b.starling, l, func(ctx context.Context, t target) error {
		loads := []struct {
			what load
			to   *[]Measurement
			name string
		}{
			{load{}, &to.Starling, "flat out"},
			{load{filtered: true}, &to.Filtered, "flat out, 1 in 20 passes"},
			{load{openLoop: b.redisOK}, &to.OpenLoop, fmt.Sprintf("open loop, %.0f/s", b.redisOK)},
		}
		for i := range loads {
			what := loads[(i+round)%len(loads)]
			stop := b.profile(ctx, t, fmt.Sprintf("%s-%d-%d", l.name, round, (i+round)%len(loads)))
			m, err := b.measure(ctx, t, l, what.what)
			stop()
			if err != nil {
				return err
			}
			b.progress(t, what.name, m)
			*what.to = append(*what.to, m)
		}
		to.StarlingBytes = t.memory()
		return nil
	})
}

func (b *bench) roundOfRedis(ctx context.Context, l layout, to *LayoutResult) error {
	if b.opts.Redis == "" {
		return nil
	}
	return b.with(ctx, b.redis, l, func(ctx context.Context, t target) error {
		m, err := b.measure(ctx, t, l, load{})
		if err != nil {
			return err
		}
		b.progress(t, "flat out", m)
		to.Redis = append(to.Redis, m)
		to.RedisBytes = t.memory()
		if l.name != allLayouts[0].name {
			return nil
		}
		m, err = b.measure(ctx, t, l, load{openLoop: b.redisOK})
		if err != nil {
			return err
		}
		b.progress(t, fmt.Sprintf("open loop, %.0f/s", b.redisOK), m)
		to.RedisOpenLoop = append(to.RedisOpenLoop, m)
		return nil
	})
}

func (b *bench) starling(ctx context.Context) (target, error) { return startStarling(ctx, &b.opts) }
func (b *bench) redis(ctx context.Context) (target, error)    { return startRedis(ctx, &b.opts) }

// with starts a server, fills it with a fleet and keeps that moving while fn
// measures.
func (b *bench) with(ctx context.Context, start func(context.Context) (target, error), l layout, fn func(context.Context, target) error) error {
	t, err := start(ctx)
	if err != nil {
		return err
	}
	b.fleets++
	fleet := newFleet(l, b.opts.Vehicles, b.opts.SideM, b.fleets)
	if err := t.fill(ctx, fleet); err != nil {
		return errors.Join(err, t.stop())
	}
	updateCtx, stopUpdates := context.WithCancel(ctx)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.update(updateCtx, fleet, b.opts.UpdatesPerSecond) })
	group.Go(func() error {
		defer stopUpdates()
		return fn(groupCtx, t)
	})
	return errors.Join(group.Wait(), t.stop())
}

// calibrate finds the rate of searches that Redis can just sustain: in steps of
// 5 % down from what it answers flat out, the first at which it answers what is
// asked and takes the updates that are sent.
func (b *bench) calibrate(ctx context.Context) error {
	b.opts.Progress("what can Redis just sustain?")
	l := allLayouts[0]
	return b.with(ctx, b.redis, l, func(ctx context.Context, t target) error {
		m, err := b.measure(ctx, t, l, load{})
		if err != nil {
			return err
		}
		b.progress(t, "flat out", m)
		for rate := m.SearchesPerSecond; rate >= m.SearchesPerSecond/10; rate -= m.SearchesPerSecond / 20 {
			m, err := b.measure(ctx, t, l, load{openLoop: rate})
			if err != nil {
				return err
			}
			b.progress(t, fmt.Sprintf("open loop, %.0f/s", rate), m)
			if b.sustained(m) {
				b.redisOK = rate
				return nil
			}
		}
		return fmt.Errorf("not even a tenth of the %.0f searches/s that it answers flat out", m.SearchesPerSecond)
	})
}

// sustained reports whether nothing piled up: a backlog would show as searches not
// answered, as updates not taken or as waiting.
func (b *bench) sustained(m Measurement) bool {
	const share, mostWaiting = 0.97, 100 * time.Millisecond
	return m.SearchesPerSecond >= share*m.OfferedPerSecond &&
		m.UpdatesPerSecond >= share*float64(b.opts.UpdatesPerSecond) && m.Latency.P99 <= mostWaiting
}

func (b *bench) progress(t target, what string, m Measurement) {
	b.opts.Progress(fmt.Sprintf("  %-8s %-26s %7.0f searches/s, %v, %6.0f updates/s, CPUs %.2f server + %.2f client, %d short, memory %d MB",
		t.name(), what, m.SearchesPerSecond, m.Latency, m.UpdatesPerSecond, m.ServerCores, m.ClientCores, m.Short, t.memory()>>20))
}

// profile takes Starling's CPU profile while something is measured.
func (b *bench) profile(ctx context.Context, t target, name string) (stop func()) {
	s, ok := t.(*starlingTarget)
	if b.opts.Profile == "" || !ok {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		seconds := max(1, int((b.opts.Warmup + b.opts.Duration).Seconds()))
		if err := s.saveProfile(ctx, seconds, filepath.Join(b.opts.Profile, name+".pprof")); err != nil {
			b.opts.Progress("no profile: " + err.Error())
		}
	}()
	return func() { <-done }
}

func (s *starlingTarget) saveProfile(ctx context.Context, seconds int, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.Admin, seconds), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.ReadFrom(resp.Body)
	return errors.Join(err, f.Close())
}
