package rpcserver

import (
	"context"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// callMetrics are the library's, but for the messages: for each of them the library
// looks a counter up by its labels, allocates, and reads the clock twice. A stream
// of reports has a message for each report, so here a call finds its counters when
// it begins.
type callMetrics struct {
	*grpcprom.ServerMetrics
	unary          grpc.UnaryServerInterceptor // the library's
	stream         grpc.StreamServerInterceptor
	received, sent *prometheus.CounterVec
}

func newCallMetrics() *callMetrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_server_msg_" + name, Help: help}, []string{"grpc_type", "grpc_service", "grpc_method"})
	}
	// 0.5 ms to 16 s: searches take tenths of a millisecond; a stream has its own
	// value of the type label.
	library := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets(prometheus.ExponentialBuckets(0.0005, 2, 16))))
	return &callMetrics{
		ServerMetrics: library, unary: library.UnaryServerInterceptor(), stream: library.StreamServerInterceptor(),
		received: counter("received_total", "Total number of RPC stream messages received on the server."),
		sent:     counter("sent_total", "Total number of gRPC stream messages sent by the server."),
	}
}

// Collect implements prometheus.Collector. The library's counters of messages have
// the names and labels of ours, which stand in their place.
func (c *callMetrics) Collect(ch chan<- prometheus.Metric) {
	ours := make(map[string]bool, 2)
	for _, vec := range []*prometheus.CounterVec{c.received, c.sent} {
		described := make(chan *prometheus.Desc, 1)
		vec.Describe(described)
		ours[(<-described).String()] = true
		vec.Collect(ch)
	}
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		c.ServerMetrics.Collect(all)
	}()
	for m := range all {
		if !ours[m.Desc().String()] {
			ch <- m
		}
	}
}

// messages counts those of one method.
type messages struct{ received, sent prometheus.Counter }

// ofMethods returns the counters of all methods of a server, by full name.
func (c *callMetrics) ofMethods(server *grpc.Server) map[string]messages {
	all := make(map[string]messages)
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			kind := "unary"
			switch {
			case m.IsClientStream && m.IsServerStream:
				kind = "bidi_stream"
			case m.IsClientStream:
				kind = "client_stream"
			case m.IsServerStream:
				kind = "server_stream"
			}
			all["/"+service+"/"+m.Name] = messages{
				c.received.WithLabelValues(kind, service, m.Name), c.sent.WithLabelValues(kind, service, m.Name),
			}
		}
	}
	return all
}

// countUnary counts the call and its messages.
func (s *Server) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	count := s.messages[info.FullMethod]
	count.received.Inc()
	answer, err := s.group.calls.unary(ctx, req, info, handler)
	if err == nil {
		count.sent.Inc()
	}
	return answer, err
}

// countStream counts the call and, past the library's stream, its messages.
func (s *Server) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return s.group.calls.stream(srv, stream, info, func(srv any, counted grpc.ServerStream) error {
		return handler(srv, &countedStream{stream, counted.Context(), s.messages[info.FullMethod]})
	})
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	ctx   context.Context
	count messages
}

// Context implements grpc.ServerStream.
func (c *countedStream) Context() context.Context { return c.ctx }

// RecvMsg implements grpc.ServerStream.
func (c *countedStream) RecvMsg(m any) error {
	err := c.ServerStream.RecvMsg(m)
	if err == nil {
		c.count.received.Inc()
	}
	return err
}

// SendMsg implements grpc.ServerStream.
func (c *countedStream) SendMsg(m any) error {
	err := c.ServerStream.SendMsg(m)
	if err == nil {
		c.count.sent.Inc()
	}
	return err
}
