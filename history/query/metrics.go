package query

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	open           prometheus.Gauge
	refusals, rows *prometheus.CounterVec
	fixes          prometheus.Counter
	stats, visits  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		open:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_history_query_open", Help: "Calls that read history."}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_history_query_refusals_total", Help: "Calls to history that were refused or given up, by reason."}, []string{"reason"}),
		rows:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_history_query_rows_total", Help: "Rows that calls have read of history's store, by kind: fixes, cells or visits."}, []string{"kind"}),
	}
	for _, reason := range []string{reasonTooManyScans, reasonTooLong, reasonStoreFailed, reasonImprecise} {
		m.refusals.WithLabelValues(reason)
	}
	m.fixes, m.stats, m.visits = m.rows.WithLabelValues("fixes"), m.rows.WithLabelValues("cells"), m.rows.WithLabelValues("visits")
	return m, errors.Join(r.Register(m.open), r.Register(m.refusals), r.Register(m.rows))
}
