package nearest

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
)

// Measurement is one load on one target.
type Measurement struct {
	// SearchesPerSecond were answered.
	SearchesPerSecond float64         `json:"searches_per_s"`
	Latency           latency.Summary `json:"latency"`
	// UpdatesPerSecond became visible to searches.
	UpdatesPerSecond float64 `json:"updates_per_s"`
	// ServerCores and ClientCores are the CPUs that were kept busy.
	ServerCores float64 `json:"server_cores"`
	ClientCores float64 `json:"client_cores"`
	// Short are searches that found fewer vehicles than were wanted.
	Short int64 `json:"short_answers"`
	// OfferedPerSecond is the rate of an open loop, 0 if there was none, and
	// Late how late the generator itself was, which Latency includes.
	OfferedPerSecond float64         `json:"offered_per_s,omitempty"`
	Late             latency.Summary `json:"generator_late,omitzero"`
}

// tally is what searchers count while they are measured.
type tally struct {
	measuring      atomic.Bool
	latency, late  latency.Histogram
	answers, short atomic.Int64
}

func (t *tally) took(d time.Duration, found, wanted int) {
	if !t.measuring.Load() {
		return
	}
	t.latency.Record(d)
	t.answers.Add(1)
	if found < wanted {
		t.short.Add(1)
	}
}

// load is what to put on a target.
type load struct {
	filtered bool
	// openLoop is the rate of an open loop; 0 searches flat out.
	openLoop float64
}

// measure puts a load on a target that has a fleet, which keeps moving.
func (b *bench) measure(ctx context.Context, t target, l layout, what load) (Measurement, error) {
	searchers, err := t.searchers(b.opts.Connections)
	if err != nil {
		return Measurement{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	counts := &tally{}
	group, ctx := errgroup.WithContext(ctx)
	if what.openLoop > 0 {
		b.openLoop(ctx, group, searchers, l, what, counts)
	} else {
		b.flatOut(ctx, group, searchers, l, what, counts)
	}
	m, err := b.watch(ctx, t, counts)
	m.OfferedPerSecond = what.openLoop
	cancel()
	if werr := group.Wait(); werr != nil {
		return m, werr
	}
	return m, err
}

// flatOut lets each searcher ask again as soon as it has an answer.
func (b *bench) flatOut(ctx context.Context, group *errgroup.Group, searchers []searcher, l layout, what load, counts *tally) {
	for i, s := range searchers {
		places := newQueries(l, b.opts.SideM, what.filtered, uint64(i))
		group.Go(func() error {
			for ctx.Err() == nil {
				began := time.Now()
				// A search that has begun is waited for: its connection stays good.
				found, err := s.search(context.WithoutCancel(ctx), places.next())
				if err != nil {
					return err
				}
				counts.took(time.Since(began), found, b.opts.Results)
			}
			return nil
		})
	}
}

// openLoop lets searches fall due at random moments (a Poisson process), no
// matter how far the ones before have come. A search that has to wait for a free
// connection counts from when it was due, so a stall is seen by all that fell
// into it (G. Tene, "How not to measure latency", calls the opposite coordinated
// omission).
func (b *bench) openLoop(ctx context.Context, group *errgroup.Group, searchers []searcher, l layout, what load, counts *tally) {
	due := make(chan time.Time, 1<<20)
	group.Go(func() error {
		defer close(due)
		// A thread that sleeps by itself wakes more sharply than a timer of the
		// runtime.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		rng := rand.New(rand.NewPCG(5, 6))
		next := time.Now()
		for ctx.Err() == nil {
			next = next.Add(time.Duration(rng.ExpFloat64() / what.openLoop * float64(time.Second)))
			if wait := time.Until(next); wait > 0 {
				sleep(wait)
			}
			if counts.measuring.Load() {
				counts.late.Record(time.Since(next))
			}
			select {
			case due <- next:
			case <-ctx.Done():
			}
		}
		return nil
	})
	for i, s := range searchers {
		places := newQueries(l, b.opts.SideM, what.filtered, uint64(i))
		group.Go(func() error {
			for at := range due {
				if ctx.Err() != nil {
					return nil
				}
				found, err := s.search(context.WithoutCancel(ctx), places.next())
				if err != nil {
					return err
				}
				counts.took(time.Since(at), found, b.opts.Results)
			}
			return nil
		})
	}
}

// watch waits for the warm-up and the measured time and returns what happened in
// the latter.
func (b *bench) watch(ctx context.Context, t target, counts *tally) (Measurement, error) {
	if err := retry.Sleep(ctx, b.opts.Warmup); err != nil {
		return Measurement{}, err
	}
	before, err := look(ctx, t)
	if err != nil {
		return Measurement{}, err
	}
	counts.measuring.Store(true)
	err = retry.Sleep(ctx, b.opts.Duration)
	counts.measuring.Store(false)
	if err != nil {
		return Measurement{}, err
	}
	after, err := look(ctx, t)
	seconds := after.at.Sub(before.at).Seconds()
	return Measurement{
		SearchesPerSecond: float64(counts.answers.Load()) / seconds,
		Latency:           counts.latency.Summary(),
		UpdatesPerSecond:  (after.updates - before.updates) / seconds,
		ServerCores:       (after.server - before.server).Seconds() / seconds,
		ClientCores:       (after.client - before.client).Seconds() / seconds,
		Short:             counts.short.Load(),
		Late:              counts.late.Summary(),
	}, err
}

// reading is what has happened so far.
type reading struct {
	at             time.Time
	updates        float64
	server, client time.Duration
}

func look(ctx context.Context, t target) (r reading, err error) {
	if r.updates, err = t.updated(ctx); err != nil {
		return r, err
	}
	if r.server, err = t.cpu(); err != nil {
		return r, err
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return r, err
	}
	r.client = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	r.at = time.Now()
	return r, nil
}
