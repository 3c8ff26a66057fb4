package generate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Every sampleEvery-th report is timed.
const sampleEvery = 8

// drainTimeout bounds the wait for the last acknowledgements.
const drainTimeout = 10 * time.Second

// worker sends the reports of its vehicles, in turn, over one stream at a time.
type worker struct {
	g        *generator
	conn     grpc.ClientConnInterface
	vehicles []*vehicle
	turn     int
	reports  int64 // sent on all streams
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

var streamDesc = &grpc.StreamDesc{StreamName: "StreamReports", ClientStreams: true, ServerStreams: true}

// onStream is what sender and receiver of one stream share.
type onStream struct {
	g           *generator
	sent, acked atomic.Int64
	// room has a token when the receiver has seen acknowledgements.
	room chan struct{}
	// sentAt are the times of the sampled reports, by number.
	sentAt []atomic.Int64
}

// stream sends on one stream until the time is over and everything is
// acknowledged, which is no error, or the stream breaks.
func (w *worker) stream(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	stream, err := w.conn.NewStream(ctx, streamDesc, starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(wire.Codec()))
	if err != nil {
		return err
	}
	s := &onStream{g: w.g, room: make(chan struct{}, 1), sentAt: make([]atomic.Int64, w.g.opts.InFlight/sampleEvery+2)}
	received := make(chan error, 1)
	go func() {
		err := s.receive(stream)
		cancel()
		received <- err
	}()
	sendErr := w.send(ctx, stream, s)
	if sendErr == nil {
		sendErr = stream.CloseSend()
		stop := time.AfterFunc(drainTimeout, cancel)
		defer stop.Stop()
	}
	ownFault := sendErr != nil && !errors.Is(sendErr, io.EOF) && ctx.Err() == nil
	if ownFault {
		cancel()
	}
	err = <-received
	if ownFault {
		err = sendErr
	}
	lost := s.sent.Load() - s.acked.Load()
	w.g.inFlight.Add(-lost)
	w.g.unknownFixes.Add(lost * int64(w.g.opts.FixesPerReport))
	if errors.Is(err, io.EOF) && lost > 0 {
		return status.Error(codes.Unavailable, "the server ended the stream before it had acknowledged everything")
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// send puts reports on the stream until the time is over.
func (w *worker) send(ctx context.Context, stream grpc.ClientStream, s *onStream) error {
	o := &w.g.opts
	req := wire.StreamRequest{HasReport: true, Report: wire.Report{Fixes: make([]wire.Fix, o.FixesPerReport)}}
	begun, first := time.Now(), w.reports
	perReport := time.Duration(0)
	if o.FixesPerSecond > 0 {
		perReport = time.Duration(float64(o.FixesPerReport*o.Streams) / o.FixesPerSecond * float64(time.Second))
		// Streams begin at different places of their period.
		begun = begun.Add(perReport * time.Duration(w.vehicleOffset()) / time.Duration(o.Streams))
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
		if err := s.waitForRoom(ctx, int64(o.InFlight)); err != nil {
			return err
		}
		v := w.vehicles[w.turn]
		w.turn = (w.turn + 1) % len(w.vehicles)
		v.fill(o, &req.Report, now)
		if v.watched && w.g.probe != nil {
			w.g.probe.Sent(v.id, v.deviceTimeMS, now)
		}
		number := s.sent.Add(1)
		if number%sampleEvery == 0 {
			s.sentAt[number/sampleEvery%int64(len(s.sentAt))].Store(now.UnixNano())
		}
		w.g.inFlight.Add(1)
		w.g.sentFixes.Add(int64(o.FixesPerReport))
		w.reports++
		if err := stream.SendMsg(&req); err != nil {
			return err
		}
	}
}

// vehicleOffset tells the worker's place among the streams.
func (w *worker) vehicleOffset() int64 {
	var n int64
	for _, c := range []byte(w.vehicles[0].id) {
		n = (n*31 + int64(c)) % int64(w.g.opts.Streams)
	}
	return n
}

// waitForRoom blocks while too many reports are unacknowledged.
func (s *onStream) waitForRoom(ctx context.Context, limit int64) error {
	for s.sent.Load()-s.acked.Load() >= limit {
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// receive takes acknowledgements until the stream ends.
func (s *onStream) receive(stream grpc.ClientStream) error {
	var ack wire.Ack
	for {
		if err := stream.RecvMsg(&ack); err != nil {
			return err
		}
		now := time.Now()
		before, after := s.acked.Load(), ack.AcknowledgedReports
		if after < before || after > s.sent.Load() {
			return status.Errorf(codes.Internal, "the server acknowledged %d reports after %d, of %d", after, before, s.sent.Load())
		}
		s.acked.Store(after)
		select {
		case s.room <- struct{}{}:
		default:
		}
		fixes := (after - before) * int64(s.g.opts.FixesPerReport)
		s.g.inFlight.Add(before - after)
		s.g.ackedFixes.Add(fixes)
		s.g.refusedFixes.Add(int64(len(ack.Refusals)))
		if now.Before(s.g.measureFrom) || now.After(s.g.measureTo) {
			continue
		}
		s.g.measuredFixes.Add(fixes)
		for number := before/sampleEvery + 1; number <= after/sampleEvery; number++ {
			at := s.sentAt[number%int64(len(s.sentAt))].Load()
			s.g.ackLatency.Record(time.Duration(now.UnixNano() - at))
		}
	}
}
