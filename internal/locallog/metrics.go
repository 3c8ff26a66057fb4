package locallog

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the log's instruments, resolved once.
type metrics struct {
	reg              prometheus.Registerer
	records          prometheus.Counter
	bytes            prometheus.Counter
	refused          prometheus.Counter
	lost             prometheus.Counter
	fetched          prometheus.Counter
	stalls           prometheus.Counter
	backgroundErrors prometheus.Counter
	latency          prometheus.Histogram
	groupSize        prometheus.Histogram

	retentionLag atomic.Int64 // ms by which the newest stamp is ahead of the time that retention goes by

	registered []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "starling", Subsystem: "locallog", Name: name, Help: help})
	}
	return &metrics{
		reg:              reg,
		records:          counter("appended_records_total", "Records that were made durable."),
		bytes:            counter("appended_bytes_total", "Bytes of the chunks that were made durable."),
		refused:          counter("refused_records_total", "Appends refused because the disk is nearly full."),
		lost:             counter("failed_records_total", "Appends that were queued and completed with an error, because the log was closed or has failed."),
		fetched:          counter("disk_reads_total", "Batches that a reader took from disk instead of memory."),
		backgroundErrors: counter("background_errors_total", "Failed attempts of a store to write or merge tables; it tries again, at most once a second."),
		stalls:           counter("write_stalls_total", "Times that a store made its writers wait."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "starling", Subsystem: "locallog", Name: "commit_latency_seconds",
			Help:    "Time from the gathering of a group to its durability, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		groupSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "starling", Subsystem: "locallog", Name: "group_records",
			Help:    "Records of one group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 10),
		}),
	}
}

// committed takes note of a group.
func (m *metrics) committed(g *group) {
	m.records.Add(float64(g.records))
	m.bytes.Add(float64(g.bytes))
	m.groupSize.Observe(float64(g.records))
	m.latency.Observe(time.Since(g.began).Seconds())
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.records, m.bytes, m.refused, m.lost, m.fetched, m.stalls, m.backgroundErrors, m.latency, m.groupSize}
}

// register makes the instruments known. A name that is taken is an error.
func (m *metrics) register(l *Log) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "starling", Subsystem: "locallog", Name: name, Help: help}, value)
	}
	collectors := append(m.all(),
		gauge("buffered_bytes", "Bytes of appends that wait for their commit.", func() float64 { return float64(l.capacity.used.Load()) }),
		gauge("free_bytes", "Free bytes of the disk at the last look, less what was written since.", func() float64 { return float64(l.space.free.Load()) }),
		gauge("clock_skew_seconds", "Seconds by which the wall clock is ahead of the log's clock, negative when behind. Beyond 10 s is an alarm: ages and retention go by the log's clock.", func() float64 { return l.clock.skew().Seconds() }),
		gauge("retention_held_seconds", "Seconds by which the newest stamp is ahead of the time that retention goes by: stamps have jumped and are not yet believed.", func() float64 { return float64(l.metrics.retentionLag.Load()) / 1000 }),
		gauge("failed", "1 when the log has failed and the process must restart.", func() float64 {
			if l.Err() != nil {
				return 1
			}
			return 0
		}),
	)
	for _, c := range collectors {
		if err := m.reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

// unregister lets a later log of the same process use the names.
func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.reg.Unregister(c)
	}
}
