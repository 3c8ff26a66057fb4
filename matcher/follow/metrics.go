package follow

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's resolved handles.
type metrics struct {
	records, repeats, outdated, gaps, skipped, invalidViews, forgotten, refused prometheus.Counter

	applySeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, f *Follower) (*metrics, error) {
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
		gaps:         counter("gaps_total", "Gaps met in a partition of tracks. A tracker fills one by publishing again; one that stays stops a matcher that serves and calls for an operator."),
		skipped:      counter("skipped_total", "Records of tracks behind a gap, which were passed over until it is filled."),
		invalidViews: counter("invalid_views_total", "Views in tracks that broke a rule, so that the vehicle kept its former state."),
		refused:      counter("vehicles_refused_total", "Reports that the tracker refused as a whole after they were acknowledged, because their vehicle is unknown and its partition is full."),
		forgotten:    counter("vehicles_forgotten_total", "Vehicles that the tracker has forgotten."),
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_matcher_apply_lag_seconds", Help: "Time from a record's append to tracks until it was searchable; the newest record of each batch.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
	}
	for _, c := range []prometheus.Collector{
		out.records, out.repeats, out.outdated, out.gaps, out.skipped, out.invalidViews, out.forgotten, out.refused, out.applySeconds,
		gauge("ready", "1 when the fleet has been rebuilt and calls are served.", func() float64 {
			if f.Ready() {
				return 1
			}
			return 0
		}),
		gauge("stale_partitions", "Partitions whose stream time and newest append time are behind by more than stale_after.", func() float64 {
			return float64(len(f.Stale(f.now().UnixMilli())))
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "starling_matcher_dispatch_age_disagreements_total",
			Help: "Views whose dispatchable shows that the trackers' dispatch_max_age, which stands in the log, is not matcher.dispatch_max_age.",
		}, func() float64 { return float64(f.agreement.disagreements.Load()) }),
		gauge("clock_skew_seconds", "Smallest time from a record's append to its being applied, in the last minute or two: near 0 when this process' clock agrees with the log's, negative when the log's stamps are in the future.", f.skew.seconds),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return out, nil
}
