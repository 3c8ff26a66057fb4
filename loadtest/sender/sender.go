// Package sender sends reports of one fix over a stream, for measurements that
// need a fleet which moves and not an account of what became of it.
package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxUnacknowledged reports wait on a stream.
const maxUnacknowledged = 4096

// Stream is a stream of reports. One goroutine at a time may use it.
type Stream struct {
	stream      grpc.ClientStream
	req         wire.StreamRequest
	sent, acked atomic.Int64
	room        chan struct{} // has a token when more was acknowledged
	ended       chan error
}

// Open opens a stream to ingest, which lasts until Close or until ctx is done.
func Open(ctx context.Context, conn *grpc.ClientConn) (*Stream, error) {
	desc := &grpc.StreamDesc{StreamName: "StreamReports", ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(wire.Codec()))
	if err != nil {
		return nil, fmt.Errorf("open a stream of reports: %w", err)
	}
	s := &Stream{stream: stream, room: make(chan struct{}, 1), ended: make(chan error, 1)}
	s.req = wire.StreamRequest{HasReport: true, Report: wire.Report{Fixes: make([]wire.Fix, 1)}}
	go func() {
		s.ended <- s.receive()
		close(s.ended)
	}()
	return s, nil
}

// Next waits until the stream takes a report and returns the one to fill in: it
// has room for one fix, and else what was in the report before.
func (s *Stream) Next() (*wire.Report, error) {
	for s.sent.Load()-s.acked.Load() >= maxUnacknowledged {
		select {
		case <-s.room:
		case err := <-s.ended:
			return nil, fmt.Errorf("reports: the stream ended: %w", err)
		}
	}
	return &s.req.Report, nil
}

// Send sends the report that Next returned.
func (s *Stream) Send() error {
	s.sent.Add(1)
	if err := s.stream.SendMsg(&s.req); err != nil {
		return fmt.Errorf("reports: send: %w", err)
	}
	return nil
}

func (s *Stream) receive() error {
	var ack wire.Ack
	for {
		if err := s.stream.RecvMsg(&ack); err != nil {
			if errors.Is(err, io.EOF) && s.sent.Load() == s.acked.Load() {
				return nil
			}
			return err
		}
		if len(ack.Refusals) > 0 {
			return fmt.Errorf("a fix was refused: %s", ack.Refusals[0].Description)
		}
		s.acked.Store(ack.AcknowledgedReports)
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
}

// Close waits until everything is acknowledged.
func (s *Stream) Close() error {
	if err := s.stream.CloseSend(); err != nil {
		return fmt.Errorf("reports: close: %w", err)
	}
	if err := <-s.ended; err != nil {
		return fmt.Errorf("reports: %w", err)
	}
	return nil
}
