package rpcserver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// readingGrace is how long a request that is being read is safe from giving way
// to newer ones when the budget is used up.
const readingGrace = time.Second

// reading is a request that has not arrived whole, and the context of its call.
// It is charged with the window of its stream, which is what gRPC lets its client
// send ahead. One whose call ends first gives its lease back at the next sweep, or
// when the budget is used up.
type reading struct {
	auth.Admission
	from   *conn
	lease  budget.Lease
	cancel context.CancelFunc
}

type readingKey struct{}

// Value implements context.Context.
func (r *reading) Value(key any) any {
	if key == (readingKey{}) {
		return r
	}
	return r.Admission.Value(key)
}

// Evict implements budget.Work: the call ends with CANCELLED.
func (r *reading) Evict() { r.cancel() }

// Ended implements budget.Work.
func (r *reading) Ended() bool { return r.Err() != nil }

// done reports that the request has arrived.
func (r *reading) done() { r.lease.Release() }

// readingOf is the reading of a call, nil if it has none.
func readingOf(ctx context.Context) *reading {
	r, _ := ctx.Value(readingKey{}).(*reading)
	return r
}

// tap is called for every call whose headers have arrived, with the lock of its
// connection held: it must not block. Who may not make the call gets no further.
// A call with one request takes a part of
// the budget until the request is whole; when it takes too long, or has to give
// way, the call ends with CANCELLED.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if !s.oneRequest[info.FullMethodName] {
		return s.guard.Admit(ctx, info.FullMethodName, info.Header)
	}
	r := &reading{from: connOf(ctx)}
	if err := s.guard.AdmitTo(ctx, info.FullMethodName, info.Header, &r.Admission); err != nil {
		return ctx, err
	}
	r.Context, r.cancel = context.WithCancel(ctx)
	if !s.readings.TakeFor(r, &r.lease, r.from, s.role.Window) {
		r.cancel()
		return ctx, s.busy(reasonTooManyRequests, "too many requests are being read")
	}
	return r, nil
}

// busy asks the client to come back.
func (s *Server) busy(reason, message string) error {
	s.group.metrics.refused.WithLabelValues(s.role.Name, reason).Inc()
	return rpcstatus.Error(codes.ResourceExhausted, rpcstatus.Reason{Domain: errorDomain, Name: reason}, message, rpcstatus.RetryAfter(time.Second))
}

// firstRead notes when the one request of a call with a stream of answers has
// arrived, and charges the answers. If these may be large, the call waits for its
// turn before the handler begins to work on the first, which ends the turn.
type firstRead struct {
	grpc.ServerStream
	server  *Server
	reading *reading
	charged charged
	large   bool
	done    func() // ends the turn; nil when there is none
}

// RecvMsg implements grpc.ServerStream.
func (f *firstRead) RecvMsg(m any) error {
	err := f.ServerStream.RecvMsg(m)
	if f.reading == nil {
		return err
	}
	f.reading.done()
	f.reading = nil
	if err == nil {
		err = f.server.charge(f.Context(), m)
	}
	if err == nil && f.large {
		f.done, err = f.server.admitLarge(f.Context(), f.charged.to)
	}
	return err
}

// worked ends the call's turn.
func (f *firstRead) worked() {
	if f.done != nil {
		f.done()
		f.done = nil
	}
}

// SendMsg implements grpc.ServerStream. gRPC encodes a message before it
// returns, and one goroutine at a time may send.
func (f *firstRead) SendMsg(m any) error {
	defer f.worked()
	f.server.settle(f.Context(), nil, m)
	if f.charged.to.conn == nil {
		return f.ServerStream.SendMsg(m)
	}
	if err := f.waitForReader(); err != nil {
		return err
	}
	f.charged.message = m
	err := f.ServerStream.SendMsg(&f.charged)
	f.charged.message = nil
	return err
}

// waitForReader keeps the next answer back while the client, or who it is on other
// connections, leaves too many unread; if it goes on doing so, it is disconnected.
func (f *firstRead) waitForReader() error {
	const look = 20 * time.Millisecond
	cfg := &f.server.group.cfg
	for {
		if u := f.server.answers.unread(f.charged.to); u.ofConn <= cfg.ConnUnreadBytes && u.ofReader <= cfg.UnreadBytes/2 {
			return nil
		}
		select {
		case <-f.Context().Done():
			return status.FromContextError(f.Context().Err()).Err()
		case <-time.After(look):
		}
	}
}
