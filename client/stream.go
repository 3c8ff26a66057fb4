package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

var streamDesc = &grpc.StreamDesc{StreamName: "StreamReports", ClientStreams: true, ServerStreams: true}

// runStream opens a stream and sends pending and new reports on it until the
// stream ends. A nil error means that the server ended it with status OK.
func (r *Reporter) runStream(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	r.queue.rewind()
	stream, err := r.conn.NewStream(ctx, streamDesc, starlingv1.IngestService_StreamReports_FullMethodName, grpc.ForceCodecV2(frameCodec{}))
	if err != nil {
		return err
	}
	var lastAck atomic.Int64
	lastAck.Store(time.Now().UnixNano())
	stopWatch := r.watchAcks(&lastAck, cancel)
	defer stopWatch()

	received := make(chan error, 1)
	go func() {
		err := r.receive(stream, &lastAck, cancel)
		cancel(nil) // wakes the sender
		received <- err
	}()
	sendErr := r.send(ctx, stream)
	ownFault := sendErr != nil && ctx.Err() == nil && !errors.Is(sendErr, io.EOF)
	if ownFault {
		cancel(sendErr)
	}
	err = <-received
	if ownFault {
		return sendErr
	}
	return streamError(ctx, err)
}

// send writes reports to the stream until it ends. It returns io.EOF if the
// server has ended the stream: then the receiver has its status.
func (r *Reporter) send(ctx context.Context, stream grpc.ClientStream) error {
	for {
		frame, done, err := r.queue.next(ctx)
		if err != nil {
			return err
		}
		if done {
			return stream.CloseSend()
		}
		if err := stream.SendMsg(frame); err != nil {
			return err
		}
	}
}

// receive reads acknowledgements until the stream ends.
func (r *Reporter) receive(stream grpc.ClientStream, lastAck *atomic.Int64, cancel context.CancelCauseFunc) error {
	var acked int64
	for {
		var resp starlingv1.StreamReportsResponse
		if err := stream.RecvMsg(&resp); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		lastAck.Store(time.Now().UnixNano())
		r.newestFault.Store(nil)
		if err := r.acknowledge(acked, &resp); err != nil {
			err = fmt.Errorf("%w: %w", ErrProtocol, err)
			cancel(err)
			return err
		}
		acked = max(acked, resp.GetAcknowledgedReports())
	}
}

// acknowledge removes from the queue what resp acknowledges beyond the first
// `before` reports of the stream, and calls the handlers.
func (r *Reporter) acknowledge(before int64, resp *starlingv1.StreamReportsResponse) error {
	n := resp.GetAcknowledgedReports() - before
	if n < 0 || n > int64(r.cfg.MaxPendingReports) {
		return fmt.Errorf("server acknowledged %d reports after %d", resp.GetAcknowledgedReports(), before)
	}
	popped, err := r.queue.pop(int(n))
	if err != nil {
		return err
	}
	for _, refusal := range resp.GetRefusals() {
		r.refused(popped, before, refusal)
	}
	now := time.Now()
	for i := range popped {
		e := &popped[i]
		r.ackedReports.Add(1)
		r.ackedFixes.Add(int64(e.fixes))
		if e.sends > 1 {
			r.resentReports.Add(1)
			r.resentFixes.Add(int64(e.fixes) * int64(e.sends-1))
		}
		if h := r.handlers.Acknowledged; h != nil {
			h(Receipt{VehicleID: e.lane.vehicle, SessionID: e.lane.session, Sequence: e.sequence, Fixes: e.fixes, Sends: e.sends, Latency: now.Sub(e.queuedAt)})
		}
	}
	return nil
}

// refused counts one refused fix and calls the handler with vehicle and session
// of its report. Both stay empty if the report is not among the popped ones.
func (r *Reporter) refused(popped []entry, before int64, f *starlingv1.FixRefusal) {
	r.refusedFixes.Add(1)
	if r.handlers.Refused == nil {
		return
	}
	refusal := Refusal{Sequence: f.GetSequence(), FixIndex: int(f.GetFixIndex()), Field: f.GetField(), Reason: f.GetReason(), Description: f.GetDescription()}
	if i := f.GetReportNumber() - before - 1; i >= 0 && i < int64(len(popped)) {
		refusal.VehicleID, refusal.SessionID = popped[i].lane.vehicle, popped[i].lane.session
	}
	r.handlers.Refused(refusal)
}

// watchAcks ends the stream if reports have been outstanding for too long
// without an acknowledgement, or if the server does not end a stream on which
// everything is acknowledged. The returned function stops the watch.
func (r *Reporter) watchAcks(lastAck *atomic.Int64, cancel context.CancelCauseFunc) (stop func()) {
	quit := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(min(time.Second, r.cfg.AckTimeout/4))
		defer tick.Stop()
		idleSince := time.Now() // nothing was outstanding then
		drained := 0            // ticks since everything was acknowledged
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				if _, _, outstanding := r.queue.size(); outstanding == 0 {
					idleSince = now
				}
				if r.queue.drained() {
					drained++
				}
				since := max(idleSince.UnixNano(), lastAck.Load())
				if now.UnixNano()-since > int64(r.cfg.AckTimeout) || drained > 1 {
					cancel(ErrAckTimeout)
					return
				}
			}
		}
	}()
	return func() { close(quit); <-ended }
}
