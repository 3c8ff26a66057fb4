package matcher

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the room's resolved handles.
type metrics struct {
	records, repeats, outdated, holes, skipped, invalidViews prometheus.Counter
	forgotten, areaRescans                                   prometheus.Counter
	applySeconds, searchSeconds                              prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, m *Matcher) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_matcher_" + name, Help: help})
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_matcher_" + name, Help: help}, read)
	}
	out := &metrics{
		records:      counter("records_total", "Records of tracks that counted."),
		repeats:      counter("repeats_total", "Records of tracks that were there before and were dropped."),
		outdated:     counter("outdated_total", "Records of tracks from an epoch that has ended, which were dropped."),
		holes:        counter("holes_total", "Holes met in a partition of tracks. A tracker fills one by publishing again; one that stays stops a matcher that serves and calls for an operator."),
		skipped:      counter("skipped_total", "Records of tracks behind a hole, which were passed over until it is filled."),
		invalidViews: counter("invalid_views_total", "Views in tracks that broke a rule, so that the vehicle kept its former state."),
		forgotten:    counter("vehicles_forgotten_total", "Vehicles that the tracker has forgotten."),
		areaRescans:  counter("area_rescans_total", "Updates of calls that watch areas for which more had changed than is remembered, so that the whole area was looked at."),
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_matcher_apply_lag_seconds", Help: "Time from a record's append to tracks until it was searchable; the newest record of each batch.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
		searchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_matcher_search_seconds", Help: "Time that a nearest search took in the index.",
			Buckets: prometheus.ExponentialBuckets(5e-6, 2, 18),
		}),
	}
	for _, c := range []prometheus.Collector{
		out.records, out.repeats, out.outdated, out.holes, out.skipped, out.invalidViews, out.forgotten, out.areaRescans, out.applySeconds, out.searchSeconds,
		gauge("vehicles", "Vehicles in the live fleet.", func() float64 { return float64(m.index.Len()) }),
		gauge("ready", "1 when the fleet has been rebuilt and calls are served.", func() float64 {
			if m.Ready() {
				return 1
			}
			return 0
		}),
		gauge("stale_partitions", "Partitions whose stream time and newest append time are behind by more than stale_after.", func() float64 {
			return float64(len(m.stale(m.now().UnixMilli())))
		}),
		gauge("clock_skew_seconds", "Smallest time from a record's append to its being applied, in the last minute or two: near 0 when this process' clock agrees with the log's, negative when the log's stamps are in the future.", m.skew.seconds),
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
