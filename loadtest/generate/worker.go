package generate

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/sender"
)

// Every sampleEvery-th report is timed.
const sampleEvery = 8

// worker sends the reports of its vehicles, in turn, over one stream at a time.
type worker struct {
	g           *generator
	conn        grpc.ClientConnInterface
	vehicles    []*vehicle
	nextVehicle int
	reports     int64 // sent on all streams
}

// run opens streams until the time is over.
func (w *worker) run(ctx context.Context) error {
	for {
		err := w.stream(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		w.g.broken.Add(1)
		wait := 200 * time.Millisecond
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted:
			for _, detail := range status.Convert(err).Details() {
				if info, ok := detail.(*errdetails.RetryInfo); ok {
					wait = info.GetRetryDelay().AsDuration()
				}
			}
		default:
			return fmt.Errorf("stream of %s: %w", w.vehicles[0].id, err)
		}
		if retry.Sleep(ctx, wait) != nil {
			return nil
		}
		if time.Now().After(w.g.measureTo) {
			return nil
		}
	}
}

// stream sends on one stream until the time is over and everything is
// acknowledged, which is no error, or the stream breaks.
func (w *worker) stream(ctx context.Context) error {
	timer := &ackTimer{g: w.g, sentAt: make([]atomic.Int64, w.g.opts.InFlight/sampleEvery+2)}
	s, err := sender.Open(ctx, w.conn, sender.Options{
		FixesPerReport: w.g.opts.FixesPerReport, MaxUnacknowledged: w.g.opts.InFlight, Acknowledged: timer.acknowledged,
	})
	if err != nil {
		return err
	}
	if err = w.send(ctx, s, timer); err == nil {
		err = s.Close()
	} else {
		s.Abort()
	}
	lost := s.Unacknowledged()
	w.g.inFlight.Add(-lost)
	w.g.unknownFixes.Add(lost * int64(w.g.opts.FixesPerReport))
	return err
}

// send puts reports on the stream until the time is over.
func (w *worker) send(ctx context.Context, s *sender.Stream, timer *ackTimer) error {
	o := &w.g.opts
	begun, first := time.Now(), w.reports
	perReport := time.Duration(0)
	if o.FixesPerSecond > 0 {
		perReport = time.Duration(float64(o.FixesPerReport*o.Streams) / o.FixesPerSecond * float64(time.Second))
		// Streams begin at different moments of their period.
		begun = begun.Add(perReport * time.Duration(w.phase()) / time.Duration(o.Streams))
	}
	for {
		now := time.Now()
		if now.After(w.g.measureTo) || o.ReportsPerVehicle > 0 && w.reports == int64(o.ReportsPerVehicle*len(w.vehicles)) {
			return nil
		}
		if perReport > 0 {
			due := begun.Add(time.Duration(w.reports-first) * perReport)
			if wait := due.Sub(now); wait > 0 {
				if err := retry.Sleep(ctx, max(wait, 500*time.Microsecond)); err != nil {
					return err
				}
				continue
			}
		}
		report, number, err := s.Next()
		if err != nil {
			return err
		}
		v := w.vehicles[w.nextVehicle]
		w.nextVehicle = (w.nextVehicle + 1) % len(w.vehicles)
		v.fill(o, report, now)
		if v.watched && w.g.probe != nil {
			w.g.probe.Sent(v.id, v.deviceTimeMS, now)
		}
		timer.sent(number, now)
		w.g.inFlight.Add(1)
		w.g.sentFixes.Add(int64(o.FixesPerReport))
		w.reports++
		if err := s.Send(); err != nil {
			return err
		}
	}
}

// phase is the worker's place among the streams.
func (w *worker) phase() int64 {
	var n int64
	for _, c := range []byte(w.vehicles[0].id) {
		n = (n*31 + int64(c)) % int64(w.g.opts.Streams)
	}
	return n
}

// ackTimer times the acknowledgements of one stream and counts its fixes.
type ackTimer struct {
	g *generator
	// sentAt are the times of the sampled reports, by number.
	sentAt []atomic.Int64
}

func (t *ackTimer) sent(number int64, now time.Time) {
	if number%sampleEvery == 0 {
		t.at(number).Store(now.UnixNano())
	}
}

// at is where the time of a sampled report is kept.
func (t *ackTimer) at(number int64) *atomic.Int64 {
	return &t.sentAt[number/sampleEvery%int64(len(t.sentAt))]
}

func (t *ackTimer) acknowledged(before, upTo int64, refused int) {
	now := time.Now()
	fixes := (upTo - before) * int64(t.g.opts.FixesPerReport)
	t.g.inFlight.Add(before - upTo)
	t.g.ackedFixes.Add(fixes)
	t.g.refusedFixes.Add(int64(refused))
	if now.Before(t.g.measureFrom) || now.After(t.g.measureTo) {
		return
	}
	t.g.measuredFixes.Add(fixes)
	for number := (before/sampleEvery + 1) * sampleEvery; number <= upTo; number += sampleEvery {
		t.g.ackLatency.Record(time.Duration(now.UnixNano() - t.at(number).Load()))
	}
}
