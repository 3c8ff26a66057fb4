package auth

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// reports is the stream whose token and content ingest checks by itself.
const reports = starlingv1.IngestService_StreamReports_FullMethodName

// reportGrace is how long a stream of reports may go on after its token has
// expired, so that what is durable by then is still acknowledged.
const reportGrace = 10 * time.Second

// Server is the guard of one gRPC server.
type Server struct {
	guard *Guard
	name  string
}

// Server returns the guard of a gRPC server with a name, which is the label of
// its metrics.
func (g *Guard) Server(name string) *Server { return &Server{g, name} }

// Admission is that a call was let in, and the context of the call: one for both
// keeps what each call needs small.
type Admission struct {
	context.Context
	method string
	rule   rule
	caller *Caller
}

type admissionKey struct{}

// Value implements context.Context.
func (a *Admission) Value(key any) any {
	switch key.(type) {
	case admissionKey:
		return a
	case callerKey:
		return a.caller
	}
	return a.Context.Value(key)
}

// Caller is who was let in.
func (a *Admission) Caller() *Caller { return a.caller }

// To reports whether the admission is one to a method.
func (a *Admission) To(method string) bool { return a.caller != nil && a.method == method }

// Admit lets a call in by its method and its headers, or refuses it. It does not
// block, and may be called as soon as the headers are there: the context that it
// returns spares the interceptors a second look.
func (s *Server) Admit(ctx context.Context, method string, headers metadata.MD) (context.Context, error) {
	a := &Admission{}
	if err := s.AdmitTo(ctx, method, headers, a); err != nil {
		return ctx, err
	}
	return a, nil
}

// AdmitTo is Admit with the memory of its result, for a context that holds more.
func (s *Server) AdmitTo(ctx context.Context, method string, headers metadata.MD, to *Admission) error {
	rule, listed := policy[method]
	c, r := s.admit(&rule, listed, headers)
	if r != nil {
		return s.guard.refused(s.name, r)
	}
	*to = Admission{Context: ctx, method: method, rule: rule, caller: c}
	return nil
}

func (s *Server) admit(rule *rule, listed bool, headers metadata.MD) (*Caller, *Refusal) {
	if rule.public {
		return nobody, nil
	}
	c, r := s.guard.caller(headers.Get("authorization"))
	if r != nil {
		return nil, r
	}
	if !listed {
		if c.dev { // the library answers that there is no such method
			return nobody, nil
		}
		return nil, refuse(NotListed, "the method is not among those that may be called")
	}
	if c.Has(Service) {
		if c, r = onBehalf(c, headers); r != nil {
			return nil, r
		}
	}
	if r := rule.permit(c); r != nil {
		return nil, r
	}
	return c, nil
}

// Admitted returns the admission of a call that may have come without Admit, and
// a context that holds it.
func (s *Server) Admitted(ctx context.Context, method string) (context.Context, *Admission, error) {
	if a, ok := ctx.Value(admissionKey{}).(*Admission); ok && a.To(method) {
		return ctx, a, nil
	}
	headers, _ := metadata.FromIncomingContext(ctx)
	a := &Admission{}
	if err := s.AdmitTo(ctx, method, headers, a); err != nil {
		return ctx, nil, err
	}
	return a, a, nil
}

// Options are the interceptors of a gRPC server that has no others.
func (s *Server) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.AdmitUnary, s.CheckUnary), grpc.ChainStreamInterceptor(s.AdmitStream, s.CheckStream)}
}

// AdmitUnary is an interceptor that lets a call in. It comes before whatever
// gives a call resources.
func (s *Server) AdmitUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, _, err := s.Admitted(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// CheckUnary is an interceptor that holds a request to the rules, and shows a
// caller what it may see of the answer. It comes last.
func (s *Server) CheckUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, a, err := s.Admitted(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return s.Handle(ctx, a, req, handler)
}

// Handle is CheckUnary for a call whose admission is at hand.
func (s *Server) Handle(ctx context.Context, a *Admission, req any, handler grpc.UnaryHandler) (any, error) {
	if err := s.request(a, req); err != nil {
		return nil, err
	}
	answer, err := handler(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.answer(a, answer)
}

// request holds a request to the rules of its method.
func (s *Server) request(a *Admission, req any) error {
	if a.rule.public || a.caller.dev {
		return nil
	}
	if r := a.rule.content(a.caller, req); r != nil {
		return s.guard.refused(s.name, r)
	}
	if s.seals(a.caller) {
		if r := s.guard.seal.openRequest(a.caller, req); r != nil {
			return s.guard.refused(s.name, r)
		}
	}
	return nil
}

// seals reports whether tokens of a caller are bound to it: those of a service of
// ours are bound where its own caller gets them.
func (s *Server) seals(c *Caller) bool {
	return s.guard.seal != nil && !c.dev && !c.forwarded && !c.Has(Service)
}

// answer shows a caller what it may see.
func (s *Server) answer(a *Admission, m any) (any, error) {
	if a.rule.public || a.caller.dev {
		return m, nil
	}
	if a.caller.Restricted() {
		var err error
		if m, err = forRider(m); err != nil {
			return nil, err
		}
	}
	if s.seals(a.caller) {
		m = s.guard.seal.sealAnswer(a.caller, m)
	}
	return m, nil
}

// AdmitStream is AdmitUnary for streams. The stream's context ends when the
// caller's token expires or its key is removed.
func (s *Server) AdmitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, a, err := s.Admitted(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var grace time.Duration
	if info.FullMethod == reports {
		grace = reportGrace
	}
	defer s.endWith(a.caller, grace, cancel)()
	err = handler(srv, &callerStream{ServerStream: stream, ctx: ctx})
	if err == nil || stream.Context().Err() != nil {
		return err
	}
	var ended *endedError
	if cause := context.Cause(ctx); asEnded(cause, &ended) {
		return s.guard.refused(s.name, ended.refusal)
	}
	if r := a.caller.ended(s.guard.now()); r != nil && status.Code(err) == codes.Unauthenticated {
		_ = s.guard.refused(s.name, r) // a stream that has noticed by itself
	}
	return err
}

// endedError is the cause with which a stream's context ends.
type endedError struct{ refusal *Refusal }

// Error implements error.
func (e *endedError) Error() string { return e.refusal.Message }

func asEnded(err error, to **endedError) bool {
	e, ok := err.(*endedError) //nolint:errorlint // a cause is not wrapped
	*to = e
	return ok
}

// endWith cancels when the caller's token expires or its key is removed, and a
// grace is over. It returns what must be called in the end.
func (s *Server) endWith(c *Caller, grace time.Duration, cancel context.CancelCauseFunc) (stop func()) {
	if c.Expires.IsZero() || c.key == nil {
		return func() {}
	}
	end := func() {
		r := c.ended(s.guard.now())
		if r == nil { // the clock was set back, or the timer is ahead of it
			r = refuse(Expired, "the token has expired", "claim", "exp")
		}
		cancel(&endedError{r})
	}
	due := end
	if grace > 0 {
		due = func() { time.AfterFunc(grace, end) }
	}
	timer := time.AfterFunc(c.Expires.Sub(s.guard.now()), due)
	stopWaiting := context.AfterFunc(c.key.removed, due)
	return func() { timer.Stop(); stopWaiting() }
}

// callerStream is a stream with the caller in its context.
type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (c *callerStream) Context() context.Context { return c.ctx }

// CheckStream is CheckUnary for streams: it looks at each message. What a stream
// of reports carries is ingest's to check.
func (s *Server) CheckStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, a, err := s.Admitted(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if info.FullMethod == reports || a.rule.public || a.caller.dev {
		return handler(srv, &callerStream{stream, ctx})
	}
	return handler(srv, &checkedStream{callerStream{stream, ctx}, s, a})
}

type checkedStream struct {
	callerStream
	server *Server
	a      *Admission
}

// RecvMsg implements grpc.ServerStream. A caller whose token has expired asks for
// nothing more, also where a handler does not look at its context (reflection's).
func (c *checkedStream) RecvMsg(m any) error {
	if err := c.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if r := c.a.caller.ended(c.server.guard.now()); r != nil {
		return r.Err() // which AdmitStream counts
	}
	return c.server.request(c.a, m)
}

// SendMsg implements grpc.ServerStream.
func (c *checkedStream) SendMsg(m any) error {
	shown, err := c.server.answer(c.a, m)
	if err != nil {
		return status.Convert(err).Err()
	}
	return c.ServerStream.SendMsg(shown)
}
