package gateway

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/internal/auth"
)

// noCall is the label of requests that reached no service.
const noCall = "none"

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	open     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_json_requests_total",
			Help: "Requests at the JSON gateway by gRPC method (none: refused before any) and HTTP status.",
		}, []string{"method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "starling_json_request_seconds",
			Help:    "Time of a request at the JSON gateway by gRPC method; of a watch, how long it was open.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		}, []string{"method"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "starling_json_open_requests",
			Help: "Requests and watches that are open at the JSON gateway.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.open} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// call is what is known of a request; it is in its context.
type call struct {
	method, from string
	out          *writer
	// message is what its newest answer takes; nil where that is charged otherwise.
	message *message
}

type callKey struct{}

// callOf returns the call that a context belongs to, or nil.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// noteCall notes for the request that ctx belongs to which method it became. The
// context that it returns passes on to the service whose call it is.
func noteCall(ctx context.Context, method string) context.Context {
	c := callOf(ctx)
	if c == nil {
		return ctx
	}
	c.method = method
	return metadata.AppendToOutgoingContext(ctx, auth.AddressKey, c.from)
}

// measure counts and times requests, and bounds each write of their answers.
func (g *Gateway) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		g.metrics.open.Inc()
		defer g.metrics.open.Dec()
		out := &writer{ResponseWriter: w, control: http.NewResponseController(w), timeout: g.cfg.WriteTimeout, status: http.StatusOK}
		c := &call{method: noCall, from: hostOf(r.RemoteAddr), out: out}
		out.extend()
		next.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
		g.metrics.requests.WithLabelValues(c.method, strconv.Itoa(out.status)).Inc()
		g.metrics.seconds.WithLabelValues(c.method).Observe(time.Since(began).Seconds())
	})
}

// writer notes the status and gives every write the same time.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	status  int
	mu      sync.Mutex
	cut     bool // by cutOff
}

// extend moves the deadline. Where a connection has none, its writes end with
// it.
func (w *writer) extend() { w.deadline(false) }

// cutOff has the write that is under way fail, and those to come.
func (w *writer) cutOff() { w.deadline(true) }

func (w *writer) deadline(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = w.cut || cut
	at := time.Now().Add(w.timeout)
	if w.cut {
		at = time.Unix(1, 0)
	}
	_ = w.control.SetWriteDeadline(at)
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(b []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController flushes with.
func (w *writer) FlushError() error {
	w.extend()
	return w.control.Flush()
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// hostOf is an address without its port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
