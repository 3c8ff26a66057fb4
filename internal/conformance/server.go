package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	handlers "github.com/starling-fleet/starling/internal/gateway/handlers"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// server plays one scenario to one client. It holds what comes in only while a
// call lasts, and takes messages of the sizes that a real server takes.
type server struct {
	starlingv1.UnimplementedIngestServiceServer

	scenario   Scenario
	judge      *Judge
	token      string // that calls have to carry; empty if none has to
	ackTimeout time.Duration

	mu      sync.Mutex
	script  Script
	opened  int
	reports int

	conns sync.Map // net.Conn by remote address
}

// maxMessageBytes is a little more than the protocol allows, so that a client that
// sends too much is judged and not cut off.
const maxMessageBytes = 4 * limits.MaxReportBytes

// maxOpen is how many connections are open at a time, and streams of one.
const maxOpen = 32

// serve serves gRPC and JSON until ctx is done.
func (s *server) serve(ctx context.Context, rpc, web net.Listener) error {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxConcurrentStreams(maxOpen))
	starlingv1.RegisterIngestServiceServer(g, s)
	mux := runtime.NewServeMux()
	if err := handlers.RegisterIngestServiceHandlerServer(ctx, mux, s); err != nil {
		return fmt.Errorf("offer the ingest service as JSON: %w", err)
	}
	h := &http.Server{
		Handler:           http.MaxBytesHandler(mux, maxMessageBytes),
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	ended := make(chan error, 2)
	go func() { ended <- g.Serve(&keeping{netutil.LimitListener(rpc, maxOpen), &s.conns}) }()
	go func() { ended <- h.Serve(netutil.LimitListener(web, maxOpen)) }()
	var err error
	running := 2
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
	}
	g.Stop()
	_ = h.Close()
	for range running {
		// What stopping leads to is no failure.
		if late := <-ended; late != nil && ctx.Err() == nil && !errors.Is(late, http.ErrServerClosed) {
			err = errors.Join(err, late)
		}
	}
	return err
}

type connKey struct{}

// keeping is a listener that remembers its open connections, so that they can be
// cut.
type keeping struct {
	net.Listener
	conns *sync.Map
}

// Accept implements net.Listener.
func (k *keeping) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err != nil {
		return nil, err
	}
	kept := &kept{c, k.conns}
	k.conns.Store(c.RemoteAddr().String(), net.Conn(kept))
	return kept, nil
}

type kept struct {
	net.Conn
	conns *sync.Map
}

// Close implements net.Conn.
func (k *kept) Close() error {
	k.conns.Delete(k.RemoteAddr().String())
	return k.Conn.Close()
}

// cut closes the connection of a call.
func (s *server) cut(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(net.Conn); ok {
		_ = c.Close()
		return
	}
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := s.conns.Load(p.Addr.String()); ok {
			_ = c.(net.Conn).Close()
		}
	}
}

// proved judges a call's token.
func (s *server) proved(ctx context.Context) {
	if s.token == "" {
		return
	}
	given := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(given) != 1 || given[0] != "Bearer "+s.token {
		s.judge.Breach(RuleToken, "a call has the authorization %q, not the bearer token that the client was given", given)
	}
}

// onOpen and onReport ask the script what is to happen.
func (s *server) onOpen() Move {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.script.Open == nil {
		return Move{}
	}
	return s.script.Open(s.opened)
}

func (s *server) onReport() Move { return s.next(s.script.Report) }

func (s *server) onCall() Move {
	if s.script.Call != nil {
		return s.next(s.script.Call)
	}
	return s.next(s.script.Report)
}

func (s *server) next(script func(n int) Move) Move {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports++
	if script == nil {
		return Move{}
	}
	return script(s.reports)
}

// StreamReports implements starlingv1.IngestServiceServer.
func (s *server) StreamReports(rpc grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]) error {
	st := &streaming{server: s, rpc: rpc, judge: s.judge.Opened()}
	s.proved(rpc.Context())
	if m := s.onOpen(); m.ends() {
		return st.end(m)
	}
	incoming := make(chan received)
	go receive(rpc, incoming)
	return st.run(incoming)
}

type received struct {
	report *starlingv1.Report
	bytes  int
	err    error
}

// receive reads a stream until it ends, by either side.
func receive(rpc grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse], to chan<- received) {
	for {
		req, err := rpc.Recv()
		in := received{report: req.GetReport(), bytes: proto.Size(req), err: err}
		if in.report == nil {
			in.report = &starlingv1.Report{}
		}
		select {
		case to <- in:
		case <-rpc.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// streaming is one stream.
type streaming struct {
	*server
	rpc       grpc.BidiStreamingServer[starlingv1.StreamReportsRequest, starlingv1.StreamReportsResponse]
	judge     *StreamJudge
	number    int // reports received
	acked     int
	sequences []int64 // of the reports received
	refusals  []*starlingv1.FixRefusal
	mute      bool // nothing is acknowledged any more
	// doubted: something untrue was acknowledged, at which a client may have
	// given the stream up.
	doubted bool
}

func (st *streaming) run(incoming <-chan received) error {
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	for {
		select {
		case <-st.rpc.Context().Done():
			st.judge.Ended(End{Unsure: true})
			return status.FromContextError(st.rpc.Context().Err()).Err()
		case <-quiet.C:
			if err := st.acknowledge(st.number); err != nil {
				return err
			}
		case in := <-incoming:
			if over, err := st.take(in); over {
				return err
			}
			if st.number-st.acked >= max(st.scenario.Hold, 1) {
				if err := st.acknowledge(st.number); err != nil {
					return err
				}
			}
			quiet.Reset(max(st.scenario.Quiet, time.Millisecond))
		}
	}
}

// take does with a report what the script says. It returns true if the stream is over.
func (st *streaming) take(in received) (over bool, err error) {
	if errors.Is(in.err, io.EOF) {
		if st.mute {
			return false, nil // the client gives up
		}
		if err := st.acknowledge(st.number); err != nil {
			return true, err
		}
		st.judge.Ended(End{Unsure: st.doubted})
		return true, nil
	}
	if in.err != nil {
		st.judge.Ended(End{Unsure: true})
		return true, in.err
	}
	if st.number == maxArrivals {
		return true, st.end(Move{End: status.Error(codes.ResourceExhausted, "no scenario has so many reports")})
	}
	st.number++
	st.sequences = append(st.sequences, in.report.GetSequence())
	st.judge.Received(in.report, in.bytes)
	m := st.onReport()
	if m.ends() {
		return true, st.end(m)
	}
	if m.Refuse && len(in.report.GetFixes()) > 0 {
		st.refusals = append(st.refusals, refusal(int64(st.number), in.report))
	}
	st.mute = st.mute || m.Mute
	return false, st.noise(m)
}

// noise sends what is no news.
func (st *streaming) noise(m Move) error {
	n, again := 0, 1
	switch m.Noise {
	case NoiseNone:
		return nil
	case NoiseBeyond:
		n, st.doubted = st.number+1000, true
	case NoiseBack:
		n, st.doubted = st.acked-1, true
	case NoiseRepeat:
		n, again = st.acked, 3
	}
	for range again {
		if err := st.rpc.Send(&starlingv1.StreamReportsResponse{AcknowledgedReports: int64(n)}); err != nil {
			return st.lost(err)
		}
	}
	return nil
}

// acknowledge acknowledges the first n reports.
func (st *streaming) acknowledge(n int) error {
	if st.mute || st.acked >= n {
		return nil
	}
	st.acked = n
	st.judge.Acknowledged(st.acked)
	resp := &starlingv1.StreamReportsResponse{AcknowledgedReports: int64(st.acked), AcknowledgedSequence: st.sequences[n-1], Refusals: st.refusals}
	st.refusals = nil
	if err := st.rpc.Send(resp); err != nil {
		return st.lost(err)
	}
	return nil
}

func (st *streaming) lost(err error) error {
	st.judge.Ended(End{Unsure: true})
	return err
}

// end ends the stream as a move says.
func (st *streaming) end(m Move) error {
	if m.Acknowledge {
		if err := st.acknowledge(st.number); err != nil {
			return err
		}
	}
	if m.Reject {
		// A real server stores what comes before the report at fault.
		if err := st.acknowledge(st.number - 1); err != nil {
			return err
		}
		st.judge.Rejected(st.number, !st.doubted)
		st.judge.Ended(End{kind: endReject, Unsure: st.doubted})
		return rejection(st.number)
	}
	e := m.Ending()
	if st.doubted {
		e = End{Unsure: true} // the client may have waited since before
	}
	st.judge.Ended(e)
	if m.Cut {
		st.cut(st.rpc.Context())
	}
	return m.End
}

// SendReport implements starlingv1.IngestServiceServer.
func (s *server) SendReport(ctx context.Context, req *starlingv1.SendReportRequest) (*starlingv1.SendReportResponse, error) {
	r := req.GetReport()
	begun := time.Now()
	call := s.judge.Called(r, proto.Size(req))
	s.proved(ctx)
	m := s.onCall()
	switch {
	case m.Reject:
		call.Answered(true, End{kind: endReject})
		return nil, rejection(1)
	case m.Cut:
		call.Answered(false, m.Ending())
		s.cut(ctx)
		return nil, m.End
	case m.End != nil:
		call.Answered(false, m.Ending())
		return nil, m.End
	}
	wait := s.scenario.Quiet / 10
	if m.Mute {
		wait = 2 * s.ackTimeout
	}
	select {
	case <-ctx.Done():
		call.Answered(false, End{Unsure: true})
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-time.After(wait):
	}
	if m.Mute {
		call.Answered(false, End{Unsure: true})
		return nil, status.Error(codes.Unavailable, "not acknowledged")
	}
	resp := &starlingv1.SendReportResponse{AcknowledgedSequence: r.GetSequence()}
	if m.Refuse && len(r.GetFixes()) > 0 {
		resp.Refusals = append(resp.Refusals, refusal(1, r))
	}
	// A client that was about to give up need not see the answer.
	call.Answered(true, End{Unsure: time.Since(begun) > s.ackTimeout/2})
	return resp, nil
}

func refusal(number int64, r *starlingv1.Report) *starlingv1.FixRefusal {
	return &starlingv1.FixRefusal{
		ReportNumber: number, Sequence: r.GetSequence(), Field: "latitude",
		Reason:      starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_OUT_OF_RANGE,
		Description: "The conformance server refuses this fix.",
	}
}
