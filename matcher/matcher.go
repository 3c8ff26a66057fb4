package matcher

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/matcher/watch"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Matcher is the role. Register its service with a gRPC server and call Run once.
type Matcher struct {
	unimplemented
	*query.Searcher
	*watch.Watcher

	index     *liveindex.Index
	residence *follow.Residence // nil: all vehicles are kept
	follower  *follow.Follower
	stopped   chan struct{} // closed when Run has ended
}

// unimplemented stands below the calls of Searcher and Watcher, which win.
type unimplemented struct {
	starlingv1.UnimplementedFleetServiceServer
}

// Deps are what a matcher works with.
type Deps struct {
	Log        follow.Log
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Now is the wall clock, which ages and staleness are measured against; nil
	// means time.Now.
	Now func() time.Time
	// Observe, if not nil, is called by one goroutine with every record of `tracks`
	// that counts, in the order of its partition. It must not keep the record.
	Observe func(partition int32, t *wire.Track)
	// Estimator estimates travel times; nil means what Config.ETA describes.
	Estimator eta.Estimator
}

// New returns a matcher that does nothing yet. It fails when cfg breaks a rule
// or the registerer has another matcher's metrics.
func New(cfg Config, deps Deps) (*Matcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m := &Matcher{stopped: make(chan struct{})}
	var err error
	if m.residence, err = cfg.residence(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	if deps.Estimator == nil {
		if deps.Estimator, err = cfg.ETA.Estimator(); err != nil {
			return nil, fmt.Errorf("matcher configuration: eta: %w", err)
		}
	}
	if err := m.assemble(cfg, deps); err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	return m, nil
}

// assemble puts the parts together: a change goes from the follower to the index
// and from there to the counts and to those who watch.
func (m *Matcher) assemble(cfg Config, deps Deps) (err error) {
	feeds := watch.NewFeeds(cfg.MaxWatchers, deps.Now)
	counts := supply.New(cfg.SupplyResolution, feeds.CountsChanged)
	index := liveindex.New(func(c *liveindex.Change) {
		counts.Apply(m.residence.Residents(c))
		feeds.VehicleChanged(c)
	})
	m.index = index
	buffers := playout.New(cfg.MaxPlaybackFixes)
	m.follower, err = follow.New(
		follow.Config{StaleAfter: cfg.StaleAfter, RebuildWindow: cfg.RebuildWindow, DispatchMaxAge: cfg.DispatchMaxAge, Residence: m.residence},
		follow.Deps{Log: deps.Log, Index: index, Playout: buffers, Now: deps.Now, StaleChanged: feeds.StaleChanged, Observe: deps.Observe, Registerer: deps.Registerer, Logger: deps.Logger},
	)
	if err != nil {
		return err
	}
	m.Searcher, err = query.New(
		query.Config{PredictLimit: cfg.PredictLimit, OneRegion: m.residence != nil},
		query.Deps{Index: index, Supply: counts, Follower: m.follower, Estimator: deps.Estimator, Now: deps.Now, Registerer: deps.Registerer, Logger: deps.Logger},
	)
	if err != nil {
		return err
	}
	m.Watcher, err = watch.New(
		watch.Config{MaxAreaVehicles: cfg.MaxAreaVehicles, SessionBytes: cfg.WatchBytes},
		watch.Deps{Feeds: feeds, Index: index, Supply: counts, Playout: buffers, Follower: m.follower, Now: deps.Now, Stopped: m.stopped, Registerer: deps.Registerer},
	)
	if err != nil {
		return err
	}
	return registerMetrics(deps.Registerer, index, counts)
}

// Ready returns whether the fleet has been rebuilt and calls are served. It is
// false again after Run has ended.
func (m *Matcher) Ready() bool { return m.follower.Ready() }

// Nearest appends to dst the vehicles that the query asks for: what a role of the
// same process searches with.
func (m *Matcher) Nearest(q liveindex.Query, dst []liveindex.Hit) []liveindex.Hit {
	return m.index.Nearest(q, dst)
}

// Vehicle returns a vehicle as it was published last, to a role of the same process.
func (m *Matcher) Vehicle(id string) (liveindex.Vehicle, bool) { return m.index.Get(id) }

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
