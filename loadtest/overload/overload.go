package overload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/loadtest/generate"
)

const (
	calibrationPrefix = "calibration-"
	connections       = 8
	// idleConnections carry the idle streams, at most so many calls each as the
	// server takes by default, with a margin.
	idleStreamsPerConnection = 500
)

// overload is one run.
type overload struct {
	opts   Options
	server *server
	conns  conns.Set
	fleet  grpc.ClientConnInterface

	idle       *idle
	flood      *flood
	nonReaders []*nonReader
	search     *dispatcher
	hostile    tally // statuses of clients that do not read and garbage senders

	logging sync.Mutex
	result  Result
}

// Run starts a server, finds its sustainable load, offers Factor times as much
// beside misbehaving clients, and judges. The result's Faults name what did not
// hold; the error, what kept the run from being made.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := opts.Validate(); err != nil {
		return Result{}, fmt.Errorf("overload: %w", err)
	}
	x := &overload{opts: opts, result: Result{Duration: opts.Duration, Factor: opts.Factor}}
	x.result.LiveBound, x.result.ResidentBound = opts.memoryBound()
	server, err := startServer(ctx, &opts)
	if err != nil {
		return x.result, fmt.Errorf("overload: %w", err)
	}
	x.server = server
	err = x.run(ctx)
	x.conns.Close()
	// A server that died is the first cause of whatever else went wrong.
	if err = errors.Join(server.End(stopPatience), err); err != nil {
		return x.result, fmt.Errorf("overload: %w", err)
	}
	x.result.judge(&opts)
	return x.result, nil
}

func (x *overload) logf(format string, args ...any) {
	if x.opts.Progress == nil {
		return
	}
	x.logging.Lock()
	defer x.logging.Unlock()
	x.opts.Progress(fmt.Sprintf(format, args...))
}

func (x *overload) run(ctx context.Context) error {
	conn, err := x.conns.Dial(x.server.Matcher)
	if err != nil {
		return err
	}
	x.fleet = conn
	if err := x.calibrate(ctx); err != nil {
		return fmt.Errorf("find the sustainable load: %w", err)
	}
	// Idle streams live as long as the run.
	idleCtx, endIdle := context.WithCancel(ctx)
	defer endIdle()
	ingest, err := x.conns.DialN(1+x.opts.IdleStreams/idleStreamsPerConnection, x.server.Ingest)
	if err != nil {
		return err
	}
	if x.idle, err = openIdle(idleCtx, ingest, x.opts.IdleStreams); err != nil {
		return err
	}
	if err := x.applyLoad(ctx); err != nil {
		return err
	}
	return x.close(ctx)
}

// calibrate finds the end-to-end rate: fixes sent flat out, by the time
// until the last of them is searchable.
func (x *overload) calibrate(ctx context.Context) error {
	ingest, err := x.conns.DialN(connections, x.server.Ingest)
	if err != nil {
		return err
	}
	o := generate.DefaultOptions()
	o.Ingest, o.Watched, o.Warmup, o.Duration = ingest, 0, 0, x.opts.Calibration
	o.Streams, o.VehiclesPerStream, o.FixesPerReport = x.opts.StreamsPerLoad, x.opts.VehiclesPerStream, x.opts.FixesPerReport
	o.InFlight, o.VehiclePrefix, o.Seed = x.opts.InFlight, calibrationPrefix, time.Now().UnixNano()
	begun := time.Now()
	r, err := generate.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := x.awaitConsumed(ctx, r.AcknowledgedFixes); err != nil {
		return err
	}
	x.result.SustainableFixesPerSecond = float64(r.AcknowledgedFixes) / time.Since(begun).Seconds()
	x.logf("sustainable: %.0f fixes/s; %.0f a second are acknowledged when the trackers may fall behind", x.result.SustainableFixesPerSecond, r.FixesPerSecond)
	if r.AcknowledgedFixes == 0 {
		return errors.New("nothing was acknowledged")
	}
	return nil
}

// awaitConsumed waits until the server's trackers have consumed so many fixes.
func (x *overload) awaitConsumed(ctx context.Context, fixes int64) error {
	ctx, cancel := context.WithTimeout(ctx, x.opts.SettleTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := x.server.sample(ctx, time.Now())
		if err != nil {
			return err
		}
		if s.ConsumedFixes >= fixes {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d fixes were consumed: %w", s.ConsumedFixes, fixes, ctx.Err())
		}
	}
}

// applyLoad puts the load on, with everybody else, and ends when all senders have
// been acknowledged everything they sent.
func (x *overload) applyLoad(ctx context.Context) error {
	floodConns, err := x.conns.DialN(connections, x.server.Ingest)
	if err != nil {
		return err
	}
	others, err := x.conns.DialN(1+x.opts.UnreadStreams+x.opts.GarbageSenders, x.server.Ingest)
	if err != nil {
		return err
	}
	rate := x.opts.Factor * x.result.SustainableFixesPerSecond
	x.flood = &flood{opts: &x.opts, conns: floodConns, rate: rate}
	x.search = newDispatcher(x.fleet)
	x.result.OfferedFixesPerSecond = rate

	begun := time.Now()
	load, cancel := context.WithTimeout(ctx, x.opts.Duration)
	defer cancel()
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return x.honest(groupCtx, others[0]) })
	for i := range x.opts.UnreadStreams {
		d := &nonReader{id: fmt.Sprintf("unread-%d", i)}
		x.nonReaders = append(x.nonReaders, d)
		group.Go(func() error { return d.run(groupCtx, load, others[1+i], &x.hostile) })
	}
	for i := range x.opts.GarbageSenders {
		group.Go(func() error { return sendGarbage(load, others[1+x.opts.UnreadStreams+i], &x.hostile) })
	}
	group.Go(func() error { x.search.run(load, x.opts.SearchEvery); return nil })
	watched := make(chan []Sample, 1)
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go func() { watched <- x.server.watch(watchCtx, begun, x.logSample) }()
	group.Go(func() error {
		drain, cancel := context.WithTimeout(groupCtx, x.opts.Duration+x.opts.SettleTimeout)
		defer cancel()
		return x.flood.run(drain, load)
	})
	err = group.Wait()
	stopWatch()
	x.result.Samples = <-watched
	x.result.DrainTime = time.Since(begun) - x.opts.Duration
	return err
}

// honest drives the fleet of well-behaved clients.
func (x *overload) honest(ctx context.Context, conn grpc.ClientConnInterface) error {
	o := fleetsim.DefaultOptions()
	o.Fleet.Vehicles, o.Fleet.Period, o.Fleet.VehiclePrefix = x.opts.HonestVehicles, x.opts.HonestPeriod, "honest-"
	o.Ingest, o.Duration, o.DrainTimeout = conn, x.opts.Duration, x.opts.SettleTimeout
	var copies int64
	o.Sent = func(t fleetsim.Transmission) {
		if t.Resend {
			copies += int64(len(t.Report.GetFixes()))
		}
	}
	p, err := fleetsim.Run(ctx, o)
	x.result.Honest = p
	x.result.Account.Copies = copies
	if err != nil {
		x.result.HonestError = err.Error()
	}
	return nil
}

func (x *overload) logSample(s Sample) {
	x.logf("%4.0fs  %9d fixes acknowledged  %9d consumed  resident %4d MiB  live %4d MiB  in flight %4d MiB  %d streams",
		s.At.Seconds(), s.AcknowledgedFixes, s.ConsumedFixes, s.ResidentBytes>>20, s.LiveBytes>>20, s.InFlightBytes>>20, s.Streams)
}

// close has the idle streams report and closes the account.
func (x *overload) close(ctx context.Context) error {
	x.logf("the load is over; everything sent has been acknowledged")
	r, a := &x.result, &x.result.Account
	idleAcked, err := x.idle.reportAll()
	r.IdleServed = idleAcked
	if err != nil {
		r.IdleError = err.Error()
	}
	r.Flood, r.FloodLatency, r.FloodStatuses = x.flood.stats(), x.flood.acks.Summary(), x.flood.ended.counts()
	r.HostileStatuses = x.hostile.counts()
	r.Search, r.SearchFailures = x.search.latency.Summary(), x.search.failed.counts()
	honest := r.Honest.Client
	a.Acknowledged = r.Flood.AcknowledgedFixes - r.Flood.RefusedFixes + honest.AcknowledgedFixes - honest.RefusedFixes - a.Copies + idleAcked
	a.Resent = r.Flood.ResentFixes + honest.ResentFixes
	for _, d := range x.nonReaders {
		a.Acknowledged += d.acked
		a.Unconfirmed += d.sent - d.acked
	}
	begun := time.Now()
	if r.Settled, err = a.settle(ctx, x.fleet, x.opts.SettleTimeout); err != nil {
		return fmt.Errorf("close the account: %w", err)
	}
	r.SettleTime = time.Since(begun)
	r.PeakResidentBytes = x.server.Memory("VmHWM")
	last, err := x.server.sample(ctx, begun)
	if err != nil {
		return err
	}
	r.InFlightAtEnd = last.InFlightBytes
	return nil
}
