package rpcserver

import (
	"context"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
)

// call lets a call with one request and one answer in and handles it.
func (s *Server) call(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (answer any, err error) {
	defer s.group.recover(method, &err)
	var a *auth.Admission
	var from *conn
	if r := readingOf(ctx); r != nil {
		r.done()
		a, from = &r.Admission, r.from
	}
	if a == nil || !a.To(method) { // it came without tap, from this process's gateway
		if ctx, a, err = s.guard.Admitted(ctx, method); err != nil {
			return nil, err
		}
	}
	// Who has gone away gets no work done.
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if !strings.HasPrefix(method, "/grpc.") {
		if err := s.admitRate(ctx, a.Caller()); err != nil {
			return nil, err
		}
	}
	if err := s.charge(ctx, req); err != nil {
		return nil, err
	}
	to := recipientOf(from, a.Caller())
	if s.large[method] {
		return s.largeCall(ctx, a, to, req, handler)
	}
	if answer, err = s.guard.Handle(ctx, a, req, handler); err != nil {
		return nil, err
	}
	s.settle(ctx, req, answer)
	if to.conn != nil {
		answer = &charged{message: answer, to: to}
	}
	return answer, nil
}

// largeCall handles a call for a large answer. It counts as being at work until
// the answer is encoded, and so is charged to its client.
func (s *Server) largeCall(ctx context.Context, a *auth.Admission, to recipient, req any, handler grpc.UnaryHandler) (answer any, err error) {
	leave, err := s.countLarge(to.conn)
	if err != nil {
		return nil, err
	}
	defer leave()
	done, err := s.admitLarge(ctx, to)
	if err != nil {
		return nil, err
	}
	handedOn := false
	defer func() {
		if !handedOn {
			done()
		}
	}()
	if answer, err = s.guard.Handle(ctx, a, req, handler); err != nil {
		return nil, err
	}
	s.settle(ctx, req, answer)
	handedOn = true
	return &charged{message: answer, to: to, encoded: done}, nil
}

// stream is unary for calls with streams.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.group.recover(info.FullMethod, &err)
	if strings.HasPrefix(info.FullMethod, "/grpc.") { // health and reflection
		if !s.side.TryAcquire(1) {
			return s.busy(reasonTooManyStreams, "too many streams of health and reflection are open")
		}
		defer s.side.Release(1)
	} else if err := s.admitRate(stream.Context(), auth.CallerOf(stream.Context())); err != nil {
		return err
	}
	if info.IsClientStream {
		return handler(srv, stream)
	}
	ctx := stream.Context()
	one := &firstRead{ServerStream: stream, server: s, reading: readingOf(ctx), charged: charged{to: recipientOf(connOf(ctx), auth.CallerOf(ctx))}}
	one.large = s.large[info.FullMethod]
	defer one.worked()
	return handler(srv, one)
}

// countLarge counts a connection's calls for large answers that wait or are at
// work, and refuses too many.
func (s *Server) countLarge(to *conn) (leave func(), err error) {
	if to == nil {
		return func() {}, nil
	}
	if to.large.Add(1) > int64(s.group.cfg.MaxConnLarge) {
		to.large.Add(-1)
		return nil, s.busy(reasonTooManyLarge, "too many calls for large answers on this connection")
	}
	return func() { to.large.Add(-1) }, nil
}

// admitLarge waits for its turn to work on a large answer. It refuses clients
// that do not read what they have asked for.
func (s *Server) admitLarge(ctx context.Context, to recipient) (done func(), err error) {
	if err := s.refuseUnread(to); err != nil {
		return nil, err
	}
	if err := s.working.Acquire(ctx, 1); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	if err := s.refuseUnread(to); err != nil { // others have been answered meanwhile
		s.working.Release(1)
		return nil, err
	}
	return func() { s.working.Release(1) }, nil
}

// refuseUnread returns the refusal of a call for a large answer while answers
// are unread, or nil. From half of the budget on nobody gets more than a share of it,
// and the other half is for those who have not had theirs: when it is used up too,
// who leaves more unread than this caller has to go before it is refused.
func (s *Server) refuseUnread(to recipient) error {
	c := &s.group.cfg
	share := c.UnreadBytes / fairShare
	u := s.answers.unread(to)
	switch {
	case u.ofConn > c.ConnUnreadBytes, u.all > c.UnreadBytes/2 && u.ofReader > share:
		return s.busy(reasonAnswersUnread, "this caller has answers that it has not read")
	case u.all > c.UnreadBytes:
		s.disconnect(s.answers.late(answerGrace, u.all-c.UnreadBytes/2), "budget")
		for u = s.answers.unread(to); u.all > c.UnreadBytes; u = s.answers.unread(to) {
			heaviest := s.answers.heaviest(heavyGrace, max(share, u.ofReader))
			if heaviest == nil { // all are young: who has more than a share goes first
				heaviest = s.answers.heaviest(0, max(share, u.ofReader))
			}
			if heaviest == nil {
				heaviest = s.answers.heaviest(heavyGrace, u.ofReader)
			}
			if heaviest == nil {
				return s.busy(reasonAnswersUnread, "clients have not read their answers")
			}
			s.disconnect(heaviest, "budget")
		}
	case u.all > c.UnreadBytes/2:
		s.disconnect(s.answers.heaviest(heavyGrace, share), "budget")
	}
	return nil
}

// sweep ends what takes too long until ctx is done.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	c, m, name := s.group.cfg, s.group.metrics, s.role.Name
	for {
		s.readings.Expire(c.ReadTimeout)
		used, evicted, _ := s.readings.Stats()
		m.reading.WithLabelValues(name).Set(float64(used))
		m.cutReadings.WithLabelValues(name).Add(float64(evicted - s.evicted))
		s.evicted = evicted
		s.disconnect(s.answers.late(c.SendTimeout, math.MaxInt64), "late")
		all := s.answers.unread(recipient{}).all
		if all > c.UnreadBytes {
			s.disconnect(s.answers.late(answerGrace, all-c.UnreadBytes/2), "budget")
		}
		m.unread.WithLabelValues(name).Set(float64(all))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// disconnect closes connections; a connection may come more than once.
func (s *Server) disconnect(conns []*conn, reason string) {
	for _, c := range conns {
		if c.cutOff.Swap(true) {
			continue
		}
		s.group.metrics.disconnected.WithLabelValues(s.role.Name, reason).Inc()
		_ = c.Close()
	}
}
