package rpcserver

import (
	"context"
	"strings"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// callMetrics are the library's, but for its interceptors: these look each metric up
// by its labels, for every message of a stream too, and allocate. Here a call has the
// library's metrics of its method at hand.
type callMetrics struct{ *grpcprom.ServerMetrics }

func newCallMetrics() *callMetrics {
	// 0.5 ms to 16 s: searches take tenths of a millisecond; a stream has its own
	// value of the type label.
	return &callMetrics{grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets(prometheus.ExponentialBuckets(0.0005, 2, 16))))}
}

// methodMetrics are those of one method.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	handled                 [codes.Unauthenticated + 1]prometheus.Counter // by code
	seconds                 prometheus.Observer
}

// ofMethods makes the metrics of all methods of a server and returns them, by full
// name. What the library collects are the metrics themselves.
func (c *callMetrics) ofMethods(server *grpc.Server) map[string]*methodMetrics {
	c.InitializeMetrics(server)
	all := map[string]*methodMetrics{}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			all["/"+service+"/"+m.Name] = &methodMetrics{}
		}
	}
	collected := make(chan prometheus.Metric)
	go func() {
		defer close(collected)
		c.Collect(collected)
	}()
	for metric := range collected {
		var shown dto.Metric
		if metric.Write(&shown) != nil {
			continue
		}
		labels := map[string]string{}
		for _, l := range shown.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		m := all["/"+labels["grpc_service"]+"/"+labels["grpc_method"]]
		if m == nil { // another server's
			continue
		}
		if h, is := metric.(prometheus.Histogram); is {
			m.seconds = h
			continue
		}
		m.take(metric.Desc().String(), labels["grpc_code"], metric.(prometheus.Counter))
	}
	return all
}

// take keeps a counter by its description, which has its name in quotes.
func (m *methodMetrics) take(description, code string, c prometheus.Counter) {
	switch is := func(name string) bool { return strings.Contains(description, `"grpc_server_`+name+`"`) }; {
	case is("started_total"):
		m.started = c
	case is("msg_received_total"):
		m.received = c
	case is("msg_sent_total"):
		m.sent = c
	case is("handled_total"):
		for i := range m.handled {
			if codes.Code(i).String() == code {
				m.handled[i] = c
			}
		}
	}
}

// ended counts a call that began at a time.
func (m *methodMetrics) ended(began time.Time, err error) {
	code := codes.OK
	if err != nil {
		code = grpcprom.FromError(err).Code()
	}
	if int(code) >= len(m.handled) { // none of gRPC's
		code = codes.Unknown
	}
	m.handled[code].Inc()
	m.seconds.Observe(time.Since(began).Seconds())
}

// unary is the interceptor of calls with one request and one answer. It counts the
// call and its messages.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m, began := s.methods[info.FullMethod], time.Now()
	m.started.Inc()
	m.received.Inc()
	answer, err := s.call(ctx, req, info.FullMethod, handler)
	if err == nil {
		m.sent.Inc()
	}
	m.ended(began, err)
	return answer, err
}

// countStream counts the call and its messages.
func (s *Server) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m, began := s.methods[info.FullMethod], time.Now()
	m.started.Inc()
	err := handler(srv, &countedStream{stream, m})
	m.ended(began, err)
	return err
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	count *methodMetrics
}

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
