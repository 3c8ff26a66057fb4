package fanout

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the resolved handles, by region where there are several.
type metrics struct {
	asked, failed []prometheus.Counter
	older         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, f *Fanout) (*metrics, error) {
	byRegion := func(name, help string) (*prometheus.CounterVec, []prometheus.Counter) {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_fanout_" + name, Help: help}, []string{"region"})
		var handles []prometheus.Counter
		for _, region := range f.names {
			handles = append(handles, vec.WithLabelValues(region))
		}
		return vec, handles
	}
	gauge := func(name, help string, read func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_fanout_" + name, Help: help}, func() float64 { return float64(read()) })
	}
	m := &metrics{older: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "starling_fanout_older_views_total",
		Help: "Nearest searches in which vehicles counted where they were returned as nearest, not in the newest view returned, because matchers were not equally far.",
	})}
	var asked, failed *prometheus.CounterVec
	asked, m.asked = byRegion("asked_total", "Calls to matchers.")
	failed, m.failed = byRegion("failed_total", "Calls to matchers that could not answer, so that another replica was asked or the region was named as unavailable.")
	for _, c := range []prometheus.Collector{
		asked, failed, m.older,
		gauge("calls", "Searches and other calls at work.", func() int { return len(f.calls) }),
		gauge("watchers", "Open watch calls.", func() int { return len(f.watches) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
