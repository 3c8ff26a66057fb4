package rpcserver

import (
	"context"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// errorDomain is the domain of google.rpc.ErrorInfo in what the server itself
// answers; the services have their own.
const errorDomain = "server.starling.v1"

// Reasons of google.rpc.ErrorInfo in what the server itself answers.
const (
	reasonPanic           = "PANIC"
	reasonTooManyRequests = "TOO_MANY_REQUESTS"
	reasonTooManyLarge    = "TOO_MANY_LARGE_CALLS"
	reasonTooManyStreams  = "TOO_MANY_STREAMS"
	reasonCostExceeded    = "COST_EXCEEDED"
	reasonAnswersUnread   = "ANSWERS_UNREAD"
	reasonTooManyCalls    = "TOO_MANY_CALLS"
)

// Panic is what a handler panics with to pass on a panic of another goroutine
// of its call, or the status that the caller is to get.
type Panic struct {
	// Value is what the goroutine panicked with.
	Value any
	// Stack is the goroutine's stack at that moment.
	Stack []byte
	// Status is what the call ends with; nil means INTERNAL.
	Status error
}

// Caught makes a Panic of what recover returned. It is to be called in the
// deferred function, so that the stack is that of the panic.
func Caught(value any) *Panic {
	if p, ok := value.(*Panic); ok {
		return p
	}
	return &Panic{Value: value, Stack: debug.Stack()}
}

// recover turns a handler's panic into a status. It is deferred.
func (g *Group) recover(method string, err *error) {
	r := recover()
	if r == nil {
		return
	}
	p := Caught(r)
	g.metrics.panics.WithLabelValues(method).Inc()
	g.logger.LogAttrs(context.Background(), slog.LevelError, "a call's handler panicked",
		slog.String("method", method), slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	*err = p.Status
	if p.Status == nil {
		*err = rpcstatus.Error(codes.Internal, rpcstatus.Reason{Domain: errorDomain, Name: reasonPanic}, "the server failed to answer; it has logged why")
	}
}
