package ingest

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// outcome is the Completion of one unary call.
type outcome chan error

// Done implements eventlog.Completion. The channel is buffered for the one value.
func (o outcome) Done(_ int64, err error) { o <- err }

// SendReport implements starlingv1.IngestServiceServer. When it fails with
// anything but INVALID_ARGUMENT the log may hold the report: the client sends it
// again under the same sequence.
func (s *Server) SendReport(ctx context.Context, req *starlingv1.SendReportRequest) (*starlingv1.SendReportResponse, error) {
	if err := s.begin(nil); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	now := s.now()
	in := &received{StreamRequest: wire.StreamRequest{HasReport: true, Report: wire.ReportFromProto(req.GetReport())}}
	in.checkSize(proto.Size(req), s.cfg.Limits.MaxMessageBytes)
	s.metrics.reportsReceived.Inc()
	s.metrics.fixesReceived.Add(float64(len(in.Report.Fixes)))
	if err := s.mayReport(auth.CallerOf(ctx), in.Report.VehicleID, 1); err != nil {
		return nil, err
	}
	from := s.sender(ctx)
	if err := s.hold(&from, in.Report.VehicleID, len(in.Report.Fixes), now.mono); err != nil {
		return nil, err
	}
	v := newValidator(s.cfg.Validation)
	refusals, err := s.admit(&v, in, 1, now)
	if err != nil {
		return nil, err
	}
	r := &in.Report
	accepted := len(r.Fixes)
	if accepted > 0 || r.Availability != 0 || r.HasAttributes {
		if err := s.appendOne(ctx, r); err != nil {
			return nil, err
		}
	}
	s.metrics.reportsAcked.Inc()
	s.metrics.fixesAcked.Add(float64(accepted))
	resp := &starlingv1.SendReportResponse{AcknowledgedSequence: r.Sequence}
	for i := range refusals {
		resp.Refusals = append(resp.Refusals, refusals[i].ToProto())
	}
	return resp, nil
}

// appendOne appends a report's record and waits until the log holds it.
func (s *Server) appendOne(ctx context.Context, r *wire.Report) error {
	limited, cancel := context.WithTimeoutCause(ctx, s.cfg.Limits.AppendWait, errAppendWait)
	defer cancel()
	bytes := int64(slotBytes + r.SizeBound())
	if err := s.budget.acquire(limited, bytes); err != nil {
		return s.unaryFailed(ctx, err)
	}
	var records arena
	record, partition := records.record(r, s.partitions, s.mono())
	done := &releasing{outcome: make(outcome, 1), server: s, bytes: bytes}
	handed := s.mono()
	if err := s.handOver(limited, partition, record, done); err != nil {
		s.budget.release(bytes)
		if limited.Err() != nil {
			err = context.Cause(limited)
		}
		s.appends.settled(err)
		return s.unaryFailed(ctx, err)
	}
	select {
	case err := <-done.outcome:
		if err != nil {
			return s.appendFailed(1, err)
		}
		s.metrics.appendSeconds.Observe((s.mono() - handed).Seconds())
		return nil
	case <-limited.Done():
		// The record stays queued, so its outcome is open.
		return s.unaryFailed(ctx, errUnconfirmed)
	}
}

// handOver gives a record to the log. A panic there leaves its outcome open.
func (s *Server) handOver(ctx context.Context, partition int32, record eventlog.Record, done eventlog.Completion) error {
	defer func() {
		if r := recover(); r != nil {
			p := rpcserver.Caught(r)
			p.Status = s.appendFailed(1, errPanicked)
			panic(p)
		}
	}()
	return s.log.Append(ctx, topics.Locations, partition, record, done)
}

// errUnconfirmed is the error when the log had not settled a record in time.
var errUnconfirmed = errors.New("not confirmed within append_wait")

// unaryFailed prefers the caller's own deadline over the server's reason.
func (s *Server) unaryFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return s.appendFailed(1, err)
}

// releasing releases bytes before it passes the outcome on.
type releasing struct {
	outcome outcome
	server  *Server
	bytes   int64
}

// Done implements eventlog.Completion.
func (r *releasing) Done(offset int64, err error) {
	r.server.budget.release(r.bytes)
	r.server.appends.settled(err)
	r.outcome.Done(offset, err)
}
