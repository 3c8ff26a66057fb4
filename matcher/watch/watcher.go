package watch

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/follow"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/supply"
)

// Config sets a watcher.
type Config struct {
	// MaxAreaVehicles bounds the vehicles inside the area that one call watches,
	// and the cells in which one call watches counts.
	MaxAreaVehicles int
	// SessionBytes is the budget for what calls that watch areas hold, and those
	// that may be resumed.
	SessionBytes int64
}

// Deps are what a watcher works with.
type Deps struct {
	Feeds    *Feeds
	Index    *liveindex.Index
	Supply   *supply.Tree
	Playout  *playout.Buffers
	Follower *follow.Follower
	// Now is the wall clock.
	Now func() time.Time
	// Stopped is closed when the role has ended, which ends all calls.
	Stopped    <-chan struct{}
	Registerer prometheus.Registerer
}

// Watcher serves the calls that stay open. Its methods may be called by any
// number of goroutines.
type Watcher struct {
	cfg      Config
	feeds    *Feeds
	sessions *feed.Sessions
	index    *liveindex.Index
	supply   *supply.Tree
	playout  *playout.Buffers
	follower *follow.Follower
	now      func() time.Time
	stopped  <-chan struct{}

	areaRescans prometheus.Counter
}

// New returns a watcher. It fails when the registerer has another's metrics.
func New(cfg Config, deps Deps) (*Watcher, error) {
	s := &Watcher{
		cfg: cfg, feeds: deps.Feeds, sessions: feed.NewSessions(cfg.SessionBytes), index: deps.Index, supply: deps.Supply, playout: deps.Playout,
		follower: deps.Follower, now: deps.Now, stopped: deps.Stopped,
	}
	if err := s.register(deps.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

func (s *Watcher) register(reg prometheus.Registerer) error {
	gauge := func(name, help string, read func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_matcher_" + name, Help: help}, func() float64 { return float64(read()) })
	}
	s.areaRescans = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "starling_matcher_area_rescans_total",
		Help: "Updates of calls that watch areas for which more had changed than is remembered, so that the whole area was looked at.",
	})
	for _, c := range []prometheus.Collector{
		s.areaRescans,
		gauge("watchers", "Open calls that watch a vehicle.", s.feeds.vehicles.Open),
		gauge("area_watch_bytes", "Budget (matcher.watch_bytes) held by calls that watch areas, and by those whose clients may come back.", s.sessions.Used),
		gauge("area_sessions_waiting", "Ended calls that watched an area and whose clients may still come back.", s.sessions.Lingering),
		gauge("area_watchers", "Open calls that watch an area.", s.feeds.areas.Open),
		gauge("count_watchers", "Open calls that watch counts.", s.feeds.counts.open.Load),
		gauge("playback_fixes", "Fixes kept for calls that play vehicles out.", s.playout.Held),
	} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
