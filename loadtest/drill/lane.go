package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// maxUnackedPerVehicle stays below the protocol's 64, so that each copy is
// recognised.
const maxUnackedPerVehicle = 40

// lane is one stream's share of the fleet. It keeps to the driver protocol:
// after a broken stream it sends what is unacknowledged again, in order, with
// the same session and sequence.
type lane struct {
	vehicles []*vehicle
	// perSecond is how many reports are due.
	perSecond float64
	ingest    []grpc.ClientConnInterface
	fleet     *fleet
	rng       *rand.Rand

	mu       sync.Mutex
	byID     map[string]*vehicle
	pending  []*entry // unacknowledged, oldest first
	queued   []*entry // to be sent on this stream
	flight   []*entry // sent on this stream and not acknowledged, copies too
	flown    int64    // acknowledged on this stream
	turns    int64    // of vehicles to make a report, taken or let pass
	made     int64    // reports
	finished bool     // nothing will be made any more
}

// fleet is all lanes and what they have in common.
type fleet struct {
	opts     Options
	started  time.Time
	behind   time.Duration // device time that is made up for within the duration
	lanes    []*lane
	lastAck  atomic.Int64 // Unix nanoseconds
	resends  atomic.Int64
	copies   atomic.Int64
	acked    atomic.Int64 // fixes
	breaks   atomic.Int64
	mu       sync.Mutex
	statuses map[codes.Code]int64
	findings check.Findings
	// stampsAhead lets devices whose clocks are wrong show it.
	stampsAhead atomic.Bool
}

func newFleet(o Options, ingest []grpc.ClientConnInterface) *fleet {
	f := &fleet{opts: o, started: time.Now(), statuses: map[codes.Code]int64{}}
	f.lastAck.Store(f.started.UnixNano())
	for i := range o.Streams {
		f.lanes = append(f.lanes, &lane{ingest: ingest, fleet: f, rng: rand.New(rand.NewPCG(o.Seed, 1<<32+uint64(i))), byID: map[string]*vehicle{}})
	}
	// The devices' first fixes are as old as it takes for the last to be new.
	f.behind = time.Duration(float64(o.Duration) * (o.Speed - 1))
	first := f.started.Add(-f.behind - time.Duration(o.FixesPerReport)*o.FixInterval)
	for n := range o.vehicles() {
		l, v := f.lanes[n%o.Streams], newVehicle(n, &o, first)
		if o.LogClock != nil {
			v.clock.may = &f.stampsAhead
		}
		l.vehicles, l.byID[v.id] = append(l.vehicles, v), v
	}
	for _, l := range f.lanes {
		l.perSecond = o.Speed * float64(len(l.vehicles)) / (o.FixInterval.Seconds() * float64(o.FixesPerReport))
	}
	return f
}

// light gives each beacon a stream of its own, as a driver's app has.
func (f *fleet) light(vehicles []*vehicle) {
	for i, v := range vehicles {
		f.lanes = append(f.lanes, &lane{
			ingest: f.lanes[0].ingest, fleet: f, rng: rand.New(rand.NewPCG(f.opts.Seed, 1<<36+uint64(i))),
			vehicles: []*vehicle{v}, byID: map[string]*vehicle{v.id: v}, perSecond: 1 / beaconInterval.Seconds(),
		})
	}
}

// reported is the account of the whole fleet; call it after run.
func (f *fleet) reported() check.Reports {
	reports := check.Reports{}
	for _, l := range f.lanes {
		for _, v := range l.vehicles {
			reports[v.id] = v.account
		}
	}
	return reports
}

// run reports until stop is closed, and then until everything is acknowledged
// or ctx is done.
func (f *fleet) run(ctx context.Context, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for _, l := range f.lanes {
		wg.Go(func() { l.run(ctx, stop) })
	}
	wg.Wait()
}

func (f *fleet) finding(kind, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.findings.Add(kind, format, args...)
}

// run opens streams until everything is acknowledged.
func (l *lane) run(ctx context.Context, stop <-chan struct{}) {
	wait := 50 * time.Millisecond
	for at := l.rng.IntN(len(l.ingest)); ; at++ {
		before := l.ackedSoFar()
		err := l.stream(ctx, stop, l.ingest[at%len(l.ingest)])
		if err == nil && l.done() {
			return
		}
		if ctx.Err() != nil {
			l.fleet.finding("an acknowledgement that never came", "%d reports of a stream, last status: %v", len(l.pending), err)
			return
		}
		l.fleet.ended(err)
		if l.ackedSoFar() != before {
			wait = 50 * time.Millisecond
		}
		sleep(ctx, wait/2+time.Duration(l.rng.Int64N(int64(wait)))) // drawn from the drill's seed
		wait = min(2*wait, time.Second)
	}
}

func (l *lane) ackedSoFar() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made - int64(len(l.pending))
}

func (l *lane) done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.finished && len(l.pending) == 0
}

// ended notes how a stream ended.
func (f *fleet) ended(err error) {
	f.breaks.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	code := status.Code(err)
	f.statuses[code]++
	switch code {
	case codes.Unavailable, codes.ResourceExhausted, codes.Canceled, codes.OK:
	default:
		f.findings.Add("a status that the protocol does not foresee here", "%v", err)
	}
}

// stream opens one stream and uses it until it breaks or everything is done.
func (l *lane) stream(ctx context.Context, stop <-chan struct{}, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := starlingv1.NewIngestServiceClient(conn).StreamReports(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.queued, l.flight, l.flown = append([]*entry(nil), l.pending...), nil, 0
	l.fleet.resends.Add(int64(len(l.queued)))
	l.mu.Unlock()
	received := make(chan error, 1)
	go func() {
		received <- l.receive(s)
		cancel()
	}()
	if err := l.send(ctx, s, stop); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		cancel()
		return errors.Join(err, <-received)
	}
	return <-received
}

// send makes reports when they are due and puts them on the stream.
func (l *lane) send(ctx context.Context, s grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], stop <-chan struct{}) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			l.finish()
		default:
			l.make()
		}
		for {
			e := l.next()
			if e == nil {
				break
			}
			if err := s.Send(&starlingv1.StreamReportsRequest{Report: e.message}); err != nil {
				return err
			}
		}
		if l.done() {
			return s.CloseSend()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// make makes the reports that are due, as long as not too many are pending.
func (l *lane) make() {
	o := &l.fleet.opts
	passed := time.Since(l.fleet.started)
	if caughtUp := time.Duration(float64(l.fleet.behind+passed) / o.Speed); l.vehicles[0].beacon == nil {
		passed = min(passed, caughtUp) // no device reports what is yet to come
	}
	due := int64(passed.Seconds() * l.perSecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; l.turns < due; l.turns++ {
		v := l.vehicles[l.turns%int64(len(l.vehicles))]
		if v.unacked >= maxUnackedPerVehicle {
			return
		}
		if v.beacon != nil {
			// Taken when it was due, also when there was no stream to send it on.
			l.put(v.ping(l.fleet.started.Add(time.Duration(l.turns+1) * beaconInterval)))
			continue
		}
		if v.parks() {
			continue
		}
		l.put(v.report(o.FixesPerReport))
		if e := v.copied(); e != nil {
			l.queued = append(l.queued, e)
			l.fleet.copies.Add(1)
		}
	}
}

func (l *lane) put(e *entry) {
	l.made++
	l.pending, l.queued = append(l.pending, e), append(l.queued, e)
}

// finish makes the last reports, with the fixes that were held back.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return
	}
	l.finished = true
	for _, v := range l.vehicles {
		if v.beacon != nil {
			continue
		}
		for i := range v.held {
			v.held[i].in = 1
		}
		l.put(v.report(1))
	}
}

func (l *lane) next() *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queued) == 0 {
		return nil
	}
	e := l.queued[0]
	l.queued = l.queued[1:]
	l.flight = append(l.flight, e)
	return e
}

func (l *lane) receive(s grpc.BidiStreamingClient[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	for {
		resp, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.acknowledged(resp); err != nil {
			l.fleet.finding("an acknowledgement that breaks the protocol", "%v", err)
			return err
		}
	}
}

// acknowledged notes what an acknowledgement contains.
func (l *lane) acknowledged(resp *starlingv1.StreamReportsResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := resp.AcknowledgedReports - l.flown
	if n < 1 || n > int64(len(l.flight)) {
		return fmt.Errorf("%d reports acknowledged after %d, with %d in flight", resp.AcknowledgedReports, l.flown, len(l.flight))
	}
	settled := l.flight[:n]
	if last := settled[n-1].account.Sequence; resp.AcknowledgedSequence != last {
		return fmt.Errorf("sequence %d acknowledged, the report has %d", resp.AcknowledgedSequence, last)
	}
	for _, r := range resp.Refusals {
		i := r.ReportNumber - l.flown - 1
		if i < 0 || i >= n || r.Sequence != settled[i].account.Sequence {
			return fmt.Errorf("refusal of report %d, sequence %d, is not of what it comes with", r.ReportNumber, r.Sequence)
		}
		account := settled[i].account
		if account.Refused == nil {
			account.Refused = map[int32]starlingv1.RefusalReason{}
		}
		account.Refused[r.FixIndex] = r.Reason
	}
	for _, e := range settled {
		if !e.account.Acknowledged {
			e.account.Acknowledged = true
			l.byID[e.message.VehicleId].unacked--
			l.fleet.acked.Add(int64(len(e.account.Fixes) - len(e.account.Refused)))
		}
	}
	for len(l.pending) > 0 && l.pending[0].account.Acknowledged {
		l.pending = l.pending[1:]
	}
	l.flight, l.flown = l.flight[n:], resp.AcknowledgedReports
	l.fleet.lastAck.Store(time.Now().UnixNano())
	return nil
}
