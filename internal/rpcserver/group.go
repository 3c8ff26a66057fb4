package rpcserver

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/auth"
)

// Group builds the gRPC servers of one process, which share metrics and limits.
type Group struct {
	cfg     Config
	guard   *auth.Guard
	logger  *slog.Logger
	calls   *callMetrics
	metrics *metrics
}

type metrics struct {
	panics       *prometheus.CounterVec
	refused      *prometheus.CounterVec
	disconnected *prometheus.CounterVec
	reading      *prometheus.GaugeVec
	unread       *prometheus.GaugeVec
	cutReadings  *prometheus.CounterVec
	cost         *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_rpc_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "starling_rpc_" + name, Help: help}, []string{"server"})
	}
	return &metrics{
		panics:       counter("panics_total", "Calls whose handler panicked, by method. Each is logged with its stack and answered INTERNAL.", "method"),
		refused:      counter("refused_calls_total", "Calls refused with RESOURCE_EXHAUSTED by a limit of the server, by server and reason.", "server", "reason"),
		disconnected: counter("disconnected_clients_total", "Connections closed because their client did not read its answers, by server and reason: late, an answer was unread for send_timeout; budget, unread_bytes was used up.", "server", "reason"),
		cutReadings:  counter("unfinished_requests_total", "Calls ended because their request did not arrive whole within read_timeout, or had to give way to new ones.", "server"),
		cost:         counter("call_cost_seconds_total", "Estimated CPU time of the calls that are admitted by cost, those of a millisecond or more.", "server"),
		reading:      gauge("reading_bytes", "Budget held by requests that are being read."),
		unread:       gauge("unread_bytes", "Bytes of answers that clients have not read."),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.panics, m.refused, m.disconnected, m.cutReadings, m.cost, m.reading, m.unread}
}

// Deps are what a group works with.
type Deps struct {
	// Guard lets callers in.
	Guard      *auth.Guard
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// NewGroup prepares a group and registers its metrics.
func NewGroup(cfg Config, deps Deps) (*Group, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Group{
		cfg: cfg, guard: deps.Guard, logger: deps.Logger,
		calls: newCallMetrics(), metrics: newMetrics(),
	}
	for _, c := range append(g.metrics.all(), g.calls) {
		if err := deps.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the gRPC servers' metrics: %w", err)
		}
	}
	return g, nil
}
