package matcher

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's resolved handles; matcher/follow has its own.
type metrics struct {
	areaRescans   prometheus.Counter
	searchSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, m *Matcher) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_matcher_" + name, Help: help})
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_matcher_" + name, Help: help}, read)
	}
	out := &metrics{
		areaRescans: counter("area_rescans_total", "Updates of calls that watch areas for which more had changed than is remembered, so that the whole area was looked at."),
		searchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_matcher_search_seconds", Help: "Time that a nearest search took in the index.",
			Buckets: prometheus.ExponentialBuckets(5e-6, 2, 18),
		}),
	}
	for _, c := range []prometheus.Collector{
		out.areaRescans, out.searchSeconds,
		gauge("vehicles", "Vehicles in the live fleet.", func() float64 { return float64(m.index.Len()) }),
		gauge("watchers", "Open calls that watch a vehicle.", func() float64 { return float64(m.watchers.Open()) }),
		gauge("playback_fixes", "Fixes kept for calls that play vehicles out.", func() float64 { return float64(m.playout.Held()) }),
		gauge("supply_cells", "H3 cells of all resolutions that have vehicles.", func() float64 { return float64(m.supply.Len()) }),
		gauge("count_watchers", "Open calls that watch counts.", func() float64 { return float64(m.counts.open.Load()) }),
		gauge("area_watchers", "Open calls that watch an area.", func() float64 { return float64(m.areas.Open()) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return out, nil
}
