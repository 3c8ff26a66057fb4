package query

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/supply"
)

// Config sets a searcher.
type Config struct {
	// PredictLimit is the longest time after a vehicle's newest fix for which a
	// search predicts where it is.
	PredictLimit time.Duration
	// OneRegion is set when the matcher keeps the vehicles of one region only.
	OneRegion bool
}

// Deps are what a searcher works with.
type Deps struct {
	Index    *liveindex.Index
	Supply   *supply.Tree
	Follower *follow.Follower
	// Estimator estimates travel times.
	Estimator eta.Estimator
	// Now is the wall clock.
	Now        func() time.Time
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Searcher answers the calls that look at the fleet once. Its methods may be
// called by any number of goroutines.
type Searcher struct {
	cfg      Config
	index    *liveindex.Index
	supply   *supply.Tree
	follower *follow.Follower
	eta      eta.Estimator
	now      func() time.Time
	logger   *slog.Logger

	searchSeconds prometheus.Histogram
}

// New returns a searcher. It fails when the registerer has another's metrics.
func New(cfg Config, deps Deps) (*Searcher, error) {
	s := &Searcher{
		cfg: cfg, index: deps.Index, supply: deps.Supply, follower: deps.Follower, eta: deps.Estimator, now: deps.Now, logger: deps.Logger,
		searchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_matcher_search_seconds", Help: "Time that a nearest search took in the index.",
			Buckets: prometheus.ExponentialBuckets(5e-6, 2, 18),
		}),
	}
	if err := deps.Registerer.Register(s.searchSeconds); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}
