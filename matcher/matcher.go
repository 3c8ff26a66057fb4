package matcher

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Matcher is the role. Register its service with a gRPC server and call Run once.
type Matcher struct {
	starlingv1.UnimplementedFleetServiceServer

	cfg      Config
	logger   *slog.Logger
	now      func() time.Time
	index    *liveindex.Index
	metrics  *metrics
	watchers *feed.Vehicles
	areas    *feed.Areas
	sessions *feed.Sessions
	supply   *supply.Tree
	counts   *countFeeds
	playout  *playout.Buffers
	eta      eta.Estimator
	resident *follow.Residence // nil: all vehicles are kept
	follower *follow.Follower
	stopped  chan struct{} // closed when Run has ended
}

// Option changes what New sets up.
type Option func(*Matcher)

// WithClock sets the wall clock, which ages and staleness are measured
// against. Without it, it is time.Now.
func WithClock(now func() time.Time) Option { return func(m *Matcher) { m.now = now } }

// WithEstimator sets who estimates travel times. Without it, it is what
// Config.ETA describes.
func WithEstimator(e eta.Estimator) Option { return func(m *Matcher) { m.eta = e } }

// New returns a matcher that does nothing yet. It fails when cfg breaks a rule
// or reg has another matcher's metrics.
func New(cfg Config, log follow.Log, reg prometheus.Registerer, logger *slog.Logger, opts ...Option) (*Matcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	m := &Matcher{
		cfg: cfg, logger: logger, now: time.Now,
		watchers: feed.NewVehicles(cfg.MaxWatchers), sessions: feed.NewSessions(), playout: playout.New(cfg.MaxPlaybackFixes),
		stopped: make(chan struct{}),
	}
	now := func() time.Time { return m.now() } // an option may set it
	m.areas, m.counts = feed.NewAreas(cfg.MaxWatchers, now), newCountFeeds(cfg.MaxWatchers, now)
	m.supply = supply.New(cfg.SupplyResolution, m.counts.changed)
	m.index = liveindex.New(func(c *liveindex.Change) {
		m.supply.Apply(m.resident.Residents(c))
		m.watchers.Changed(c.ID)
		m.areas.Changed(c)
	})
	var err error
	if m.resident, err = cfg.residence(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	if m.eta, err = cfg.ETA.Estimator(); err != nil {
		return nil, fmt.Errorf("matcher configuration: eta: %w", err)
	}
	for _, opt := range opts {
		opt(m)
	}
	if m.metrics, err = newMetrics(reg, m); err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	m.follower, err = follow.New(
		follow.Config{StaleAfter: cfg.StaleAfter, RebuildWindow: cfg.RebuildWindow, DispatchMaxAge: cfg.DispatchMaxAge, Residence: m.resident},
		follow.Deps{Log: log, Index: m.index, Playout: m.playout, Now: m.now, StaleChanged: m.staleChanged, Registerer: reg, Logger: logger},
	)
	if err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	return m, nil
}

// Ready returns whether the fleet has been rebuilt and calls are served. It is
// false again after Run has ended.
func (m *Matcher) Ready() bool { return m.follower.Ready() }

// Run follows `tracks` until ctx is done and then returns nil. It ends with an
// error when the log fails, when a record cannot be decoded, and when a gap
// stays, so that records are missing. Open watch calls end with it. It must be
// called once.
func (m *Matcher) Run(ctx context.Context) error {
	defer close(m.stopped)
	if err := m.follower.Run(ctx); err != nil {
		return fmt.Errorf("matcher: %w", err)
	}
	return nil
}

// staleChanged wakes the calls whose answers name stale partitions.
func (m *Matcher) staleChanged() {
	m.areas.WakeAll()
	m.counts.wakeAll()
}
