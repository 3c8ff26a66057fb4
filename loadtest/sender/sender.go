// Package sender sends reports over a stream with as little CPU as possible,
// for measurements whose load generator shares the cores with the server. It
// does not send anything again: what a broken stream leaves unacknowledged is
// the caller's to count.
//
// The drill and the hostile clients of overload have senders of their own,
// because they examine or break the protocol that this one relies on; who needs
// the whole driver protocol uses package client.
package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// drainTimeout bounds how long Close waits for the last acknowledgements.
const drainTimeout = 10 * time.Second

// Options bound a stream.
type Options struct {
	// FixesPerReport is how many fixes Next's report holds.
	FixesPerReport int
	// MaxUnacknowledged is how many reports may be unacknowledged before Next
	// waits.
	MaxUnacknowledged int
	// Acknowledged is called for every acknowledgement, from one goroutine: the
	// reports with the numbers after before, up to and including upTo, are
	// acknowledged, with so many fixes refused. Nil means that a refused fix is
	// an error, which ends the stream.
	Acknowledged func(before, upTo int64, refused int)
}

// OneFix are the options for reports of one fix, none of which may be refused.
func OneFix() Options { return Options{FixesPerReport: 1, MaxUnacknowledged: 4096} }

// Stream is a stream of reports. One goroutine at a time may use it.
type Stream struct {
	opts        Options
	stream      grpc.ClientStream
	cancel      context.CancelFunc
	req         wire.StreamRequest
	sent, acked atomic.Int64
	// capacity has a token if the receiver has seen acknowledgements.
	capacity chan struct{}
	ended    chan struct{} // closed when the receiver has ended
	err      error         // the receiver's, set before ended is closed
}

// errEndedEarly is the end of a stream on which something is unacknowledged.
var errEndedEarly = status.Error(codes.Unavailable, "the server ended the stream before it had acknowledged everything")

// Open opens a stream to ingest, which lasts until Close, or until ctx is done.
func Open(ctx context.Context, conn grpc.ClientConnInterface, o Options) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	desc := &grpc.StreamDesc{StreamName: "StreamReports", ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(wire.Codec()))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a stream of reports: %w", err)
	}
	s := &Stream{opts: o, stream: stream, cancel: cancel, capacity: make(chan struct{}, 1), ended: make(chan struct{})}
	s.req = wire.StreamRequest{HasReport: true, Report: wire.Report{Fixes: make([]wire.Fix, o.FixesPerReport)}}
	go func() {
		s.err = s.receive()
		cancel() // wakes a sender that waits for HTTP/2's windows
		close(s.ended)
	}()
	return s, nil
}

// Next waits until the stream accepts a report, and returns the one to fill in,
// with the number that Send gives it, counted from 1. It holds what was in the
// report before.
func (s *Stream) Next() (report *wire.Report, number int64, err error) {
	for s.Unacknowledged() >= int64(s.opts.MaxUnacknowledged) {
		select {
		case <-s.capacity:
		case <-s.ended:
			return nil, 0, s.endError()
		}
	}
	return &s.req.Report, s.sent.Load() + 1, nil
}

// Send sends the report that Next returned. If the stream has ended, it returns
// the stream's status.
func (s *Stream) Send() error {
	s.sent.Add(1)
	err := s.stream.SendMsg(&s.req)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		<-s.ended
		return s.endError()
	}
	select {
	case <-s.ended: // the receiver's error is the cause
		return s.endError()
	default:
		return fmt.Errorf("send a report: %w", err)
	}
}

// Unacknowledged returns how many reports were sent and not acknowledged.
func (s *Stream) Unacknowledged() int64 { return s.sent.Load() - s.acked.Load() }

func (s *Stream) endError() error {
	if s.err == nil {
		return errEndedEarly
	}
	return fmt.Errorf("stream of reports: %w", s.err)
}

// receive reads acknowledgements until the stream ends.
func (s *Stream) receive() error {
	var ack wire.Ack
	for {
		if err := s.stream.RecvMsg(&ack); err != nil {
			switch {
			case !errors.Is(err, io.EOF):
				return err
			case s.Unacknowledged() > 0:
				return errEndedEarly
			}
			return nil
		}
		before, upTo := s.acked.Load(), ack.AcknowledgedReports
		if upTo < before || upTo > s.sent.Load() {
			return status.Errorf(codes.Internal, "the server acknowledged %d reports after %d, of %d", upTo, before, s.sent.Load())
		}
		if s.opts.Acknowledged == nil && len(ack.Refusals) > 0 {
			return fmt.Errorf("a fix was refused: %s", ack.Refusals[0].Description)
		}
		s.acked.Store(upTo)
		select {
		case s.capacity <- struct{}{}:
		default:
		}
		if s.opts.Acknowledged != nil {
			s.opts.Acknowledged(before, upTo, len(ack.Refusals))
		}
	}
}

// Close ends the stream when everything is acknowledged, and returns nil; else
// it returns what ended it before.
func (s *Stream) Close() error {
	stop := time.AfterFunc(drainTimeout, s.cancel)
	defer stop.Stop()
	if err := s.stream.CloseSend(); err != nil {
		s.Abort()
		return fmt.Errorf("close a stream of reports: %w", err)
	}
	<-s.ended
	if s.err != nil {
		return fmt.Errorf("stream of reports: %w", s.err)
	}
	return nil
}

// Abort ends the stream at once.
func (s *Stream) Abort() {
	s.cancel()
	<-s.ended
}
