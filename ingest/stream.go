package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// stream is one StreamReports call. Three goroutines share it: the handler
// waits for its end, the receiver reads, validates and appends, and the sender,
// started with the first report, acknowledges. The log's goroutines call in
// through the slots.
type stream struct {
	srv *Server
	rpc grpc.ServerStream

	// The receiver's own.
	in        received
	valid     validator
	records   arena
	sessionID uint64
	vehicleID string
	caller    *auth.Caller
	permitted string // the vehicle that the caller was last found to report for
	sender    sender
	number    int64 // reports read
	appending bool  // the log has been asked to take a record and has not answered
	reports   pacer
	fixes     pacer

	// receive is done when the receiver is to give up whatever it waits for.
	receive     context.Context
	stopReceive context.CancelCauseFunc
	// receiving is what the receiver does, since when (Server.tick): negative
	// while it works on a report or waits for capacity, positive while it reads.
	receiving atomic.Int64
	// sendingSince is when the sender began to send, zero while it does not.
	sendingSince atomic.Int64

	wake     chan struct{} // signals the sender that there is something to do
	capacity chan struct{} // signals the receiver that there is capacity in flight
	over     chan struct{} // closed when the handler may return result

	mu            sync.Mutex
	ring          []*slot // by number, a power of two long
	taken, pushed int64   // numbers of the newest report taken by the sender, and in flight
	free          *slot
	inFlight      int   // reports read and not yet handed to gRPC as acknowledged
	inFlightBytes int64 // what they are charged with
	pendingBytes  int64 // of them, what the log has not settled
	timing        bool  // a slot in flight is being timed
	woken         bool
	wantsCapacity bool
	hasSender     bool
	endingSince   int64 // when the stream began to end; zero before
	result        error // what it ends with, unless a report fails first
	isOver        bool
	panicked      *rpcserver.Panic // of the receiver or the sender
	closed        bool             // the handler is returning
}

// received is a message as read. Unmarshal leaves its error in fault, because
// gRPC answers a decoder's error by itself, before what came before has been
// acknowledged.
type received struct {
	wire.StreamRequest
	maxBytes int
	fault    string
	tooLarge bool
}

// Unmarshal implements the interface of wire.Codec.
func (in *received) Unmarshal(b []byte) error {
	in.fault = ""
	if in.checkSize(len(b), in.maxBytes); in.tooLarge {
		return nil
	}
	if err := in.UnmarshalReceived(b); err != nil {
		in.fault = err.Error()
	}
	return nil
}

func (in *received) checkSize(bytes, most int) {
	if in.tooLarge = bytes > most; in.tooLarge {
		in.fault = fmt.Sprintf("the message has %d bytes, at most %d are taken", bytes, most)
	}
}

// StreamReports implements starlingv1.IngestServiceServer.
func (s *Server) StreamReports(rpc grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	st := &stream{
		srv: s, rpc: rpc, caller: auth.CallerOf(rpc.Context()), sender: s.sender(rpc.Context()),
		in:       received{maxBytes: s.cfg.Limits.MaxMessageBytes},
		valid:    newValidator(s.cfg.Validation),
		reports:  pacer{perSecond: s.cfg.Limits.StreamReportsPerSec},
		fixes:    pacer{perSecond: s.cfg.Limits.StreamFixesPerSec},
		wake:     make(chan struct{}, 1),
		capacity: make(chan struct{}, 1),
		over:     make(chan struct{}),
	}
	st.receive, st.stopReceive = context.WithCancelCause(rpc.Context())
	st.receiving.Store(s.tick.Load())
	if err := s.begin(st); err != nil {
		st.stopReceive(nil)
		return err
	}
	defer s.calls.Done()
	s.calls.Add(1)
	go st.receiveAll()
	select {
	case <-st.over:
	case <-rpc.Context().Done():
		st.abort(status.FromContextError(rpc.Context().Err()).Err())
	}
	err := st.close()
	s.forget(st)
	s.metrics.streamsEnded.WithLabelValues(status.Code(err).String()).Inc()
	if p := st.panic(); p != nil {
		panic(p) // the gRPC server counts and logs it
	}
	return err
}

// caught ends the stream when the receiver or the sender panics. It is deferred.
// A panic while the log is asked to take a record leaves its outcome open.
func (s *stream) caught(appending *bool) {
	r := recover()
	if r == nil {
		return
	}
	p := rpcserver.Caught(r)
	if appending != nil && *appending {
		p.Status = s.srv.appendFailed(s.number, errPanicked)
	}
	s.note(p)
	s.abort(p.Status)
}

// note keeps the first panic.
func (s *stream) note(p *rpcserver.Panic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panicked == nil {
		s.panicked = p
	}
}

func (s *stream) panic() *rpcserver.Panic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.panicked
}

// receiveAll reads until the stream is at its end, by either side.
func (s *stream) receiveAll() {
	defer s.srv.calls.Done()
	defer s.caught(&s.appending)
	for {
		s.receiving.Store(s.srv.tick.Load())
		err := s.rpc.RecvMsg(&s.in)
		if errors.Is(err, io.EOF) {
			s.finish(nil)
			return
		}
		if err != nil {
			s.abort(err)
			return
		}
		s.receiving.Store(-s.srv.tick.Load())
		s.number++
		if err := s.handle(); err != nil {
			s.finish(err)
			return
		}
		s.in.trim()
	}
}

// handle takes in the report that was just read. Its error is what the stream ends
// with.
func (s *stream) handle() error {
	now := s.srv.now()
	m := s.srv.metrics
	m.reportsReceived.Inc()
	r := &s.in.Report
	if s.in.fault == "" {
		s.inherit(r)
		m.fixesReceived.Add(float64(len(r.Fixes)))
		if err := s.permit(r.VehicleID); err != nil {
			return err
		}
		if err := s.srv.hold(&s.sender, r.VehicleID, len(r.Fixes), now.mono); err != nil {
			return err
		}
	}
	refusals, err := s.srv.admit(&s.valid, &s.in, s.number, now)
	if err != nil {
		return err
	}
	if err := s.pace(1, len(r.Fixes), now.mono); err != nil {
		return err
	}
	return s.store(r, refusals, now.mono)
}

// inherit fills in what a report may leave out.
func (s *stream) inherit(r *wire.Report) {
	if r.VehicleID == "" {
		r.VehicleID = s.vehicleID
	}
	if r.SessionID == 0 {
		r.SessionID = s.sessionID
	}
	s.vehicleID, s.sessionID = r.VehicleID, r.SessionID
}

// permit returns why the caller may not report for a vehicle, or nil.
func (s *stream) permit(vehicle string) error {
	if vehicle == s.permitted && vehicle != "" {
		return nil
	}
	if err := s.srv.mayReport(s.caller, vehicle, s.number); err != nil {
		return err
	}
	s.permitted = vehicle
	return nil
}

// pace waits until the stream's rates allow a report.
func (s *stream) pace(reports, fixes int, now time.Duration) error {
	wait := max(s.reports.wait(reports, now), s.fixes.wait(fixes, now))
	if wait == 0 {
		return nil
	}
	s.receiving.Store(s.srv.tick.Load()) // neither blocked nor silent
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.receiving.Store(-s.srv.tick.Load())
		return nil
	case <-s.receive.Done():
		return s.cutOff()
	}
}

// store puts a report in flight and hands its record to the log.
//
// A crash before the log holds the record loses it: it was not acknowledged.
// A crash after that leaves a record whose acknowledgement may not have been
// sent: the client sends it again and the tracker knows it by its sequence.
func (s *stream) store(r *wire.Report, refusals []wire.FixRefusal, now time.Duration) error {
	hasRecord := len(r.Fixes) > 0 || r.Availability != 0 || r.HasAttributes
	bytes := int64(slotBytes + refusalBytes*len(refusals))
	if hasRecord {
		bytes += int64(r.SizeBound())
	}
	if err := s.waitForCapacity(bytes); err != nil {
		return err
	}
	// The record is made before the slot is timed: from here on it is the log's.
	var record eventlog.Record
	var partition int32
	if hasRecord {
		record, partition = s.records.record(r, s.srv.partitions, now)
	}
	sl := s.push(r, refusals, bytes, hasRecord)
	if sl == nil || !hasRecord {
		return nil
	}
	s.appending = true
	err := s.srv.log.Append(s.receive, topics.Locations, partition, record, sl)
	s.appending = false
	if err != nil {
		// The record was not queued, so the slot is ours to settle; that also
		// ends the stream.
		if cause := context.Cause(s.receive); cause != nil {
			err = cause
		}
		sl.Done(0, err)
	}
	return nil
}

// waitForCapacity waits until the stream and the server have capacity for a report.
func (s *stream) waitForCapacity(bytes int64) error {
	for !s.hasCapacity(bytes) {
		select {
		case <-s.capacity:
		case <-s.receive.Done():
			return s.cutOff()
		}
	}
	if err := s.srv.budget.acquire(s.receive, bytes); err != nil {
		return s.cutOff()
	}
	return nil
}

// hasCapacity reports whether the stream has capacity for a report; otherwise it
// asks to be notified.
func (s *stream) hasCapacity(bytes int64) bool {
	l := &s.srv.cfg.Limits
	s.mu.Lock()
	defer s.mu.Unlock()
	has := s.inFlight == 0 || s.inFlight < l.StreamReports && s.inFlightBytes+bytes <= l.StreamBytes
	s.wantsCapacity = !has
	return has
}

// cutOff is what the stream ends with when the receiver's wait was cancelled.
func (s *stream) cutOff() error {
	cause := context.Cause(s.receive)
	if errors.Is(cause, errAppendWait) {
		return s.srv.appendFailed(s.number, cause)
	}
	return s.srv.shuttingDown() // the stream is over anyway, with another result
}

// trim releases memory after a report that was much larger than most.
func (in *received) trim() {
	const keep = 64
	if r := &in.Report; cap(r.Fixes) > keep && len(r.Fixes) < cap(r.Fixes)/4 {
		r.Fixes = nil
	}
}
