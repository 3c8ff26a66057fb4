package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// MaxRequestBytes bounds a request: a polygon of a thousand corners has 20 KiB.
const MaxRequestBytes = 256 << 10

// Deps are what a server works with.
type Deps struct {
	// Store is what it answers from. The server does not close it.
	Store      store.Store
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Server is starling.v1.HistoryService. It is safe for concurrent use.
type Server struct {
	starlingv1.UnimplementedHistoryServiceServer
	cfg     Config
	store   store.Store
	logger  *slog.Logger
	metrics *metrics

	scans *budget.Shares[string] // by caller
}

// New returns a server. It fails when cfg breaks a rule or the registerer has another
// one's metrics.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("history's query configuration: %w", err)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of history's queries: %w", err)
	}
	return &Server{cfg: cfg, store: deps.Store, logger: deps.Logger, metrics: m, scans: budget.NewShares[string](cfg.MaxScans)}, nil
}

// Register adds HistoryService to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { starlingv1.RegisterHistoryServiceServer(r, s) }

// ServerOptions are those of a gRPC server with this service.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxRequestBytes)}
}

// scan is a call that reads history.
type scan struct {
	// Context ends with the call, or when its time is over.
	context.Context
	server *Server
	caller context.Context
	cancel context.CancelFunc
	who    string
}

// begin lets a call read, or refuses it. The caller ends what it is given.
func (s *Server) begin(ctx context.Context) (*scan, error) {
	who := auth.Principal(ctx)
	switch full, over := s.scans.Take(who, s.cfg.MaxCallerScans); {
	case over:
		return nil, s.refused(tooManyScans("this caller has as many calls that read history as it may"))
	case full:
		return nil, s.refused(tooManyScans("as many calls read history as may"))
	}
	s.metrics.open.Inc()
	within, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	return &scan{within, s, ctx, cancel, who}, nil
}

func (c *scan) end() {
	c.cancel()
	c.server.metrics.open.Dec()
	c.server.scans.Release(c.who)
}

// failed is the status of a call whose store failed: because of the call's own end,
// or because the store does not answer.
func (c *scan) failed(err error) error {
	switch {
	case c.caller.Err() != nil:
		return status.FromContextError(c.caller.Err()).Err()
	case errors.Is(c.Err(), context.DeadlineExceeded):
		return c.server.refused(tooLong(c.server.cfg.CallTimeout))
	}
	c.server.logger.Error("a question could not be answered from history", "error", err)
	return c.server.refused(storeFailed())
}

// late returns the status of a call whose time is over, which a store that is not
// waiting for anything may not notice.
func (c *scan) late() error {
	if c.Err() == nil {
		return nil
	}
	return c.failed(c.Err())
}

// refused counts a refusal.
func (s *Server) refused(r refusal) error {
	s.metrics.refusals.WithLabelValues(r.reason).Inc()
	return r.err
}
