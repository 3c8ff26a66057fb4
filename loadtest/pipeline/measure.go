package pipeline

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/generate"
)

// Load of every measurement: enough streams and vehicles that neither bounds
// the rate, and so few that every vehicle is known when the warm-up ends.
const (
	streams           = 32
	vehiclesPerStream = 128
	connections       = 4
	watched           = 24
)

// run is one measurement.
type run struct {
	// fixesPerSecond were acknowledged.
	fixesPerSecond float64
	// cpuPerFix is the server's CPU time for each fix acknowledged.
	cpuPerFix time.Duration
	// lag is how much traffic, in time, was acknowledged and not consumed at
	// the end of the measured time.
	lag        time.Duration
	ackLatency latency.Summary
	searchable latency.Summary
}

// load are the generator's options for a child.
func (b *bench) load(fixesPerReport int, conns []grpc.ClientConnInterface) generate.Options {
	o := generate.DefaultOptions()
	o.Streams, o.VehiclesPerStream, o.FixesPerReport = streams, vehiclesPerStream, fixesPerReport
	// In flight enough for a commit of a few milliseconds, in fixes; not so much
	// that queueing hides how the server does.
	o.InFlight = max(64, min(1024, 4096/fixesPerReport))
	o.Warmup, o.Duration, o.Watched = b.opts.Warmup, b.opts.Duration, 0
	o.Ingest = conns
	return o
}

// measure puts a load on a new child. A rate of 0 is as fast as it goes.
func (b *bench) measure(ctx context.Context, kind Kind, fixesPerReport int, rate float64) (run, error) {
	c, err := b.start(ctx, kind)
	if err != nil {
		return run{}, err
	}
	defer c.stop()
	conns, closeAll, err := c.dial(connections)
	if err != nil {
		return run{}, err
	}
	defer closeAll()
	if err := b.prime(ctx, conns); err != nil {
		return run{}, fmt.Errorf("%s: %w", kind, err)
	}
	o := b.load(fixesPerReport, conns)
	o.FixesPerSecond = rate
	if kind == StarlingWhole {
		fleet, err := client.Dial(c.Matcher, client.DialOptions{})
		if err != nil {
			return run{}, err
		}
		defer fleet.Close()
		o.Fleet, o.Watched = fleet, watched
	}
	whole := kind == BaselineWhole || kind == StarlingWhole
	sampled := make(chan samples, 1)
	go func() { sampled <- c.sample(ctx, kind, whole, b.opts.Warmup, b.opts.Duration) }()
	result, err := generate.Run(ctx, o)
	s := <-sampled
	if err == nil {
		err = s.err
	}
	if err == nil && result.BrokenStreams > 0 {
		err = fmt.Errorf("%d streams broke", result.BrokenStreams)
	}
	if err == nil && result.FixesPerSecond == 0 {
		err = fmt.Errorf("nothing was acknowledged within %v", result.Measured)
	}
	if err == nil && result.RefusedFixes > 0 {
		err = fmt.Errorf("%d fixes were refused", result.RefusedFixes)
	}
	if err != nil {
		return run{}, fmt.Errorf("%s, %d fixes a report: %w", kind, fixesPerReport, err)
	}
	r := run{fixesPerSecond: result.FixesPerSecond, ackLatency: result.AckLatency, searchable: result.Searchable}
	r.cpuPerFix = time.Duration(float64(s.cpu) / (result.FixesPerSecond * result.Measured.Seconds()))
	if whole && rate > 0 {
		// At a steady rate, what is consumed a second more is what arrived a
		// second before: the difference is what has piled up.
		r.lag = time.Duration((result.FixesPerSecond*result.Measured.Seconds() - s.consumed) / result.FixesPerSecond * float64(time.Second))
	}
	return r, nil
}

// prime sends a little until a new log has its usual latency: a Kafka cluster takes
// some seconds to set up new topics, and the first records of each partition
// wait for that.
func (b *bench) prime(ctx context.Context, conns []grpc.ClientConnInterface) error {
	if len(b.opts.KafkaBrokers) == 0 {
		return nil
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		o := b.load(1, conns)
		o.VehiclePrefix, o.FixesPerSecond = "prime-", 2000
		o.Warmup, o.Duration = 0, time.Second
		r, err := generate.Run(ctx, o)
		if err != nil {
			return fmt.Errorf("prime the log: %w", err)
		}
		if r.AckLatency.P99 < 200*time.Millisecond && r.BrokenStreams == 0 && r.AckLatency.Count > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("prime the log: still acknowledged in %v (p99) after half a minute", r.AckLatency.P99)
		}
	}
}

// samples are what a child did within the measured time.
type samples struct {
	cpu      time.Duration
	consumed float64 // fixes
	err      error
}

// sample looks at a child at the beginning and the end of the measured time.
func (c *child) sample(ctx context.Context, kind Kind, whole bool, warmup, duration time.Duration) (s samples) {
	look := func(after time.Duration) (cpu time.Duration, fixes int64) {
		if err := retry.Sleep(ctx, after); err != nil {
			s.err = err
			return 0, 0
		}
		var err error
		if cpu, err = c.CPU(); err != nil {
			s.err = err
		}
		if whole {
			p, err := c.consumed(ctx, kind)
			if err != nil {
				s.err = err
			}
			fixes = p.fixes
		}
		return cpu, fixes
	}
	cpu0, fixes0 := look(warmup)
	cpu1, fixes1 := look(duration)
	s.cpu, s.consumed = cpu1-cpu0, float64(fixes1-fixes0)
	return s
}

// sustainable is the end-to-end rate: fixes sent flat out, divided by the
// time until the last of them is searchable.
func (b *bench) sustainable(ctx context.Context, fixesPerReport int) (float64, error) {
	c, err := b.start(ctx, StarlingWhole)
	if err != nil {
		return 0, err
	}
	defer c.stop()
	conns, closeAll, err := c.dial(connections)
	if err != nil {
		return 0, err
	}
	defer closeAll()
	if err := b.prime(ctx, conns); err != nil {
		return 0, err
	}
	before, err := c.consumed(ctx, StarlingWhole)
	if err != nil {
		return 0, err
	}
	o := b.load(fixesPerReport, conns)
	begun := time.Now()
	result, err := generate.Run(ctx, o)
	if err != nil {
		return 0, err
	}
	if err := c.waitConsumed(ctx, before.fixes+result.AcknowledgedFixes); err != nil {
		return 0, err
	}
	return float64(result.AcknowledgedFixes) / time.Since(begun).Seconds(), nil
}

// waitConsumed waits until everything acknowledged is searchable.
func (c *child) waitConsumed(ctx context.Context, fixes int64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		p, err := c.consumed(ctx, StarlingWhole)
		if err != nil {
			return err
		}
		if p.fixes >= fixes && p.visible {
			return nil
		}
		if retry.Sleep(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%d of %d fixes were consumed: %w", p.fixes, fixes, ctx.Err())
		}
	}
}

// Fixes that each vehicle has in its reorder window when the heap is measured.
const (
	heapReports        = 2
	heapFixesPerReport = 10
)

var heapPackages = map[string]string{
	"starling-fleet/starling/tracker":           "tracker",
	"starling-fleet/starling/matcher":           "matcher",
	"starling-fleet/starling/ingest.":           "ingest",
	"starling-fleet/starling/internal/locallog": "log",
	"starling-fleet/starling/internal/kafkalog": "log",
	"google.golang.org/grpc":                    "grpc",
}

// heap fills a fleet's reorder windows and returns what is live, by package.
func (b *bench) heap(ctx context.Context) (map[string]float64, error) {
	c, err := b.start(ctx, StarlingWhole)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	conns, closeAll, err := c.dial(connections)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	o := b.load(heapFixesPerReport, conns)
	o.Streams, o.VehiclesPerStream = 100, b.opts.HeapVehicles/100
	o.ReportsPerVehicle, o.Warmup, o.Duration = heapReports, 0, time.Minute
	result, err := generate.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := c.waitConsumed(ctx, result.AcknowledgedFixes); err != nil {
		return nil, err
	}
	body, err := c.Get(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return nil, fmt.Errorf("read the heap profile: %w", err)
	}
	defer body.Close()
	return heapByPackage(body, heapPackages)
}
