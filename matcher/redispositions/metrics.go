package redispositions

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's resolved handles.
type metrics struct {
	written, removed, older, outdated, swept, rewrites, failures prometheus.Counter

	lag prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Sink) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_redis_" + name, Help: help})
	}
	m := &metrics{
		written:  counter("positions_written_total", "States of vehicles that were written to Redis."),
		removed:  counter("positions_removed_total", "Vehicles that were removed from Redis because the tracker has forgotten them; also those that another process had removed."),
		older:    counter("positions_older_total", "States of vehicles of which Redis had one as new or newer, which another process wrote."),
		outdated: counter("positions_outdated_total", "States of vehicles that were not written because Redis has positions of a later epoch: of another log under the same prefix, or of one that was replaced."),
		swept:    counter("positions_swept_total", "Vehicles that were swept from the fleet in Redis because nothing was written of them for redis.positions_keep."),
		rewrites: counter("positions_rewrites_total", "Times that all vehicles were written to Redis again, because it was emptied or because calls had failed."),
		failures: counter("positions_failures_total", "Calls of Redis that failed; their vehicles are written later, as they are then."),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_redis_positions_lag_seconds", Help: "How long a vehicle waited until its newest state was in Redis; the longest of each batch.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
	}
	read := func(of func(*mirror) int64) func() float64 {
		return func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(of(&s.mirror))
		}
	}
	for _, c := range []prometheus.Collector{
		m.written, m.removed, m.older, m.outdated, m.swept, m.rewrites, m.failures, m.lag,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_redis_positions_pending", Help: "Vehicles that wait to be written to Redis."}, read(func(m *mirror) int64 { return int64(len(m.queue)) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "starling_redis_positions_unplaced_total", Help: "States of vehicles that were not taken because redis.positions_max_vehicles are held."}, read(func(m *mirror) int64 { return m.unplaced })),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// count notes what became of a batch.
func (m *metrics) count(batch []written, c counts, outdated bool, now time.Time) {
	m.swept.Add(float64(c.swept))
	if outdated {
		m.outdated.Add(float64(len(batch)))
		return
	}
	gone := 0
	for i := range batch {
		if batch[i].gone {
			gone++
		}
	}
	m.removed.Add(float64(gone))
	m.written.Add(float64(c.written))
	m.older.Add(float64(c.older))
	if len(batch) > 0 {
		m.lag.Observe(max(now.Sub(batch[0].since), 0).Seconds())
	}
}
