package fleetsim

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/valid"
)

// Options set how a fleet's reports are sent.
type Options struct {
	Fleet Config
	// Ingest is where the reports go.
	Ingest grpc.ClientConnInterface
	// Duration is how long the fleet drives; 0 means until ctx is done.
	Duration time.Duration
	// FlatOut sends the whole Duration, which ends now, as fast as the server
	// takes it. Otherwise the fleet drives in real time.
	FlatOut bool
	// DrainTimeout bounds how long the end waits for acknowledgements.
	DrainTimeout time.Duration
	// Client bounds the reporter.
	Client client.Config
	// Errands, if not nil, are what vehicles are sent on, at once.
	Errands <-chan Errand
	// Sent, if not nil, is called with each transmission before it is sent.
	Sent func(Transmission)
	// Trouble, if not nil, is called with what keeps reports from being taken:
	// why there is no connection, what the server refuses. It may be called
	// often, and from several goroutines.
	Trouble func(error)
	// Progress, if not nil, is called every ProgressEvery, from one
	// goroutine.
	Progress      func(Progress)
	ProgressEvery time.Duration
}

// DefaultOptions drive the default fleet until ctx is done.
func DefaultOptions() Options {
	return Options{Fleet: DefaultConfig(), Client: client.DefaultConfig(), DrainTimeout: 30 * time.Second, ProgressEvery: time.Second}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Add(o.Fleet.Validate())
	faults.Add(o.Client.Validate())
	faults.Need(o.Ingest != nil, "ingest", nil, "a connection")
	valid.AtLeast(&faults, "duration", o.Duration, 0)
	faults.Need(!o.FlatOut || o.Duration != 0, "duration", o.Duration, "set with flat_out")
	valid.Positive(&faults, "drain_timeout", o.DrainTimeout)
	valid.Positive(&faults, "progress_every", o.ProgressEvery)
	return faults.Err()
}

// Progress is how a simulation goes.
type Progress struct {
	Elapsed time.Duration `json:"elapsed_ns"`
	// Behind is how late the newest report was sent.
	Behind time.Duration `json:"behind_ns"`
	// Reports and Fixes were sent, Resends among them for no need.
	Reports int64 `json:"reports"`
	Fixes   int64 `json:"fixes"`
	Resends int64 `json:"resends"`
	// FixesPerSecond were acknowledged since the last Progress.
	FixesPerSecond float64 `json:"fixes_per_second"`
	// Client counts what became of the reports.
	Client client.Stats `json:"client"`
	// AckLatency is from sending to the acknowledgement.
	AckLatency latency.Summary `json:"ack_latency"`
}

// Run drives a fleet and sends its reports until Duration is over or ctx is
// done, then waits, for up to DrainTimeout, until everything is acknowledged.
// That ctx is done is no error.
func Run(ctx context.Context, opts Options) (Progress, error) {
	if err := opts.Validate(); err != nil {
		return Progress{}, fmt.Errorf("simulate: %w", err)
	}
	r := &run{opts: opts, begun: time.Now()}
	start := r.begun
	if opts.FlatOut {
		start = start.Add(-opts.Duration)
	}
	var err error
	if r.fleet, err = NewFleet(opts.Fleet, start); err != nil {
		return Progress{}, err
	}
	handlers := client.Troubles(opts.Trouble)
	handlers.Acknowledged = func(x client.Receipt) { r.acks.Record(x.Latency) }
	r.reporter, err = client.NewReporter(opts.Ingest, opts.Client, handlers)
	if err != nil {
		return Progress{}, fmt.Errorf("simulate: %w", err)
	}
	// The reporter outlives ctx by as long as draining takes.
	runCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	ran := make(chan struct{})
	go func() { defer close(ran); stop(r.reporter.Run(runCtx)) }()
	defer func() { stop(nil); <-ran }()

	err = r.drive(ctx, runCtx, start)
	if err == nil {
		drain, cancel := context.WithTimeout(runCtx, opts.DrainTimeout)
		defer cancel()
		err = r.reporter.Close(drain)
	}
	if err != nil {
		err = fmt.Errorf("simulate: %w", err)
	}
	return r.progress(), err
}

type run struct {
	opts     Options
	fleet    *Fleet
	reporter *client.Reporter
	begun    time.Time
	acks     latency.Histogram

	sums       Progress // reports, fixes, resends, behind
	lastReport time.Time
	lastAck    int64
}

// pollEvery is how often a fleet in real time is advanced.
const pollEvery = 20 * time.Millisecond

// drive sends until ctx is done or the duration is over; reporter is done when
// the reporter has ended.
func (r *run) drive(ctx, reporter context.Context, start time.Time) error {
	end := start.Add(r.opts.Duration)
	clock := start
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	sendCtx, cancel := mergeDone(ctx, reporter)
	defer cancel()
	for r.opts.Duration == 0 || clock.Before(end) {
		if r.opts.FlatOut {
			clock = clock.Add(time.Second)
		} else {
			select {
			case <-tick.C:
			case <-sendCtx.Done():
				return done(ctx, reporter)
			}
			clock = time.Now()
		}
		if r.opts.Duration > 0 && clock.After(end) {
			clock = end
		}
		r.sendOut()
		for _, x := range r.fleet.Advance(clock) {
			if err := r.send(sendCtx, x); err != nil {
				if ended := done(ctx, reporter); ended != nil || ctx.Err() != nil {
					return ended
				}
				return err
			}
		}
		r.reportProgress()
	}
	return nil
}

// sendOut sends vehicles on the errands that have come.
func (r *run) sendOut() {
	for {
		select {
		case e := <-r.opts.Errands:
			r.fleet.Send(e)
		default:
			return
		}
	}
}

// done returns why sending ended; a done ctx is no error.
func done(ctx, reporter context.Context) error {
	if ctx.Err() == nil && reporter.Err() != nil {
		return context.Cause(reporter)
	}
	return nil
}

// mergeDone is a context that is done when either of two is.
func mergeDone(a, b context.Context) (context.Context, context.CancelFunc) {
	merged, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return merged, func() { stop(); cancel() }
}

func (r *run) send(ctx context.Context, x Transmission) error {
	if r.opts.Sent != nil {
		r.opts.Sent(x)
	}
	if err := r.reporter.Send(ctx, x.Report); err != nil {
		return err
	}
	r.sums.Reports++
	r.sums.Fixes += int64(len(x.Report.GetFixes()))
	if x.Resend {
		r.sums.Resends++
	}
	if !r.opts.FlatOut {
		r.sums.Behind = time.Since(x.At)
	}
	return nil
}

func (r *run) reportProgress() {
	if r.opts.Progress == nil || time.Since(r.lastReport) < r.opts.ProgressEvery {
		return
	}
	r.opts.Progress(r.progress())
}

func (r *run) progress() Progress {
	now := time.Now()
	p := r.sums
	p.Elapsed, p.Client, p.AckLatency = now.Sub(r.begun), r.reporter.Stats(), r.acks.Summary()
	last := r.lastReport
	if last.IsZero() {
		last = r.begun
	}
	if d := now.Sub(last).Seconds(); d > 0 {
		p.FixesPerSecond = float64(p.Client.AcknowledgedFixes-r.lastAck) / d
	}
	r.lastReport, r.lastAck = now, p.Client.AcknowledgedFixes
	return p
}
