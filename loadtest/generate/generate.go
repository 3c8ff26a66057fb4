package generate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/freshness"
	"github.com/starling-fleet/starling/internal/latency"
)

// generator is one run.
type generator struct {
	opts  Options
	probe *freshness.Probe
	begun time.Time
	// Acknowledgements between these count.
	measureFrom, measureTo time.Time

	ackLatency                  latency.Histogram
	sentFixes, ackedFixes       atomic.Int64
	refusedFixes, measuredFixes atomic.Int64
	unknownFixes, broken        atomic.Int64
	inFlight                    atomic.Int64
}

// Run sends for Warmup and Duration, waits for what is unacknowledged, and
// returns what it measured. A stream that breaks for a reason that may pass is
// opened again after the delay that the server asks for; its unacknowledged
// reports are not sent again. It ends early, without an error, when ctx is done.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := opts.Validate(); err != nil {
		return Result{}, fmt.Errorf("generate: %w", err)
	}
	g := &generator{opts: opts, begun: time.Now()}
	g.measureFrom = g.begun.Add(opts.Warmup)
	g.measureTo = g.measureFrom.Add(opts.Duration)
	workers := g.workers()

	watchCtx, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watching errgroup.Group
	if opts.Fleet != nil && opts.Watched > 0 {
		g.probe = freshness.New(opts.Fleet, watchedOf(workers, opts.Watched))
		watching.Go(func() error { return g.probe.Run(watchCtx) })
	}
	stopProgress := g.reportProgress()
	sending, sendCtx := errgroup.WithContext(ctx)
	for _, w := range workers {
		sending.Go(func() error { return w.run(sendCtx) })
	}
	err := sending.Wait()
	ended := time.Now()
	stopProgress()
	if g.probe != nil && err == nil {
		g.awaitShown(ctx)
	}
	stopWatching()
	if werr := watching.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		err = fmt.Errorf("generate: %w", err)
	}
	return g.result(ended), err
}

// workers makes the streams and their vehicles.
func (g *generator) workers() []*worker {
	rng := rand.New(rand.NewPCG(uint64(g.opts.Seed), 0))
	workers := make([]*worker, g.opts.Streams)
	for s := range workers {
		w := &worker{g: g, conn: g.opts.Ingest[s%len(g.opts.Ingest)]}
		for v := range g.opts.VehiclesPerStream {
			w.vehicles = append(w.vehicles, newVehicle(&g.opts, rng, g.begun, s*g.opts.VehiclesPerStream+v))
		}
		workers[s] = w
	}
	return workers
}

// watchedOf marks vehicles of all streams in turn as watched and returns their
// names.
func watchedOf(workers []*worker, n int) []string {
	var ids []string
	for i := 0; len(ids) < n && i < len(workers[0].vehicles); i++ {
		for _, w := range workers {
			if len(ids) < n {
				w.vehicles[i].watched = true
				ids = append(ids, w.vehicles[i].id)
			}
		}
	}
	return ids
}

// awaitShown gives the fleet five seconds to show the last fixes.
func (g *generator) awaitShown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.probe.Waiting() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *generator) result(ended time.Time) Result {
	if ended.After(g.measureTo) {
		ended = g.measureTo
	}
	r := Result{
		Measured:   max(0, ended.Sub(g.measureFrom)),
		AckLatency: g.ackLatency.Summary(),
		SentFixes:  g.sentFixes.Load(), AcknowledgedFixes: g.ackedFixes.Load(), RefusedFixes: g.refusedFixes.Load(),
		UnknownFixes: g.unknownFixes.Load(), BrokenStreams: g.broken.Load(),
	}
	if r.Measured > 0 {
		r.FixesPerSecond = float64(g.measuredFixes.Load()) / r.Measured.Seconds()
	}
	if g.probe != nil {
		r.Searchable, r.Unsearchable = g.probe.Shown(), g.probe.Waiting()
	}
	return r
}

// reportProgress calls Progress every second until the returned function is
// called.
func (g *generator) reportProgress() (stop func()) {
	if g.opts.Progress == nil {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		lastAcked, last := int64(0), g.begun
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				acked := g.ackedFixes.Load()
				g.opts.Progress(Progress{
					Elapsed: now.Sub(g.begun), AcknowledgedFixes: acked,
					FixesPerSecond:    float64(acked-lastAcked) / now.Sub(last).Seconds(),
					UnacknowledgedNow: g.inFlight.Load(), BrokenStreamsSoFar: g.broken.Load(),
				})
				lastAcked, last = acked, now
			}
		}
	}()
	return func() { close(quit); <-ended }
}
