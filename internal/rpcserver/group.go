package rpcserver

import (
	"fmt"
	"log/slog"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
)

// Group builds the gRPC servers of one process, which share metrics and limits.
type Group struct {
	cfg     Config
	logger  *slog.Logger
	calls   *grpcprom.ServerMetrics
	metrics *metrics
}

type metrics struct {
	panics *prometheus.CounterVec
}

// NewGroup prepares a group and registers its metrics.
func NewGroup(cfg Config, reg prometheus.Registerer, logger *slog.Logger) (*Group, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Group{
		cfg: cfg, logger: logger,
		// 1 ms to 16 s: searches take tenths of a millisecond, streams are told
		// apart from calls by their type.
		calls: grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
			grpcprom.WithHistogramBuckets(prometheus.ExponentialBuckets(0.0005, 2, 16)))),
		metrics: &metrics{
			panics: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "starling_rpc_panics_total", Help: "Calls whose handler panicked, by method. Each is logged with its stack and answered INTERNAL.",
			}, []string{"method"}),
		},
	}
	for _, c := range []prometheus.Collector{g.calls, g.metrics.panics} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the gRPC servers' metrics: %w", err)
		}
	}
	return g, nil
}
