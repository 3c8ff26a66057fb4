package history

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	owned                                           prometheus.Gauge
	rows, files, bytes, failures, gaps, undecodable prometheus.Counter
	batches                                         prometheus.Counter
	lag                                             prometheus.GaugeFunc
}

// newMetrics registers the role's metrics; lagSeconds is asked at every scrape.
func newMetrics(r prometheus.Registerer, lagSeconds func() float64) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		owned:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_history_owned_partitions", Help: "Partitions of tracks that this process writes to the lake of history."}),
		rows:        counter("starling_history_rows_total", "Rows that were written to the lake of history."),
		files:       counter("starling_history_files_total", "Parquet files that were written to the lake of history."),
		bytes:       counter("starling_history_written_bytes_total", "Bytes of the Parquet files that were written to the lake of history."),
		batches:     counter("starling_history_batches_total", "Batches of rows that the lake of history has taken."),
		failures:    counter("starling_history_write_failures_total", "Writes of a batch to the lake of history that failed; they are tried again."),
		gaps:        counter("starling_history_gaps_total", "Ranges of tracks that the lake of history will never have: deleted before they were read, or given up by history.max_lag."),
		undecodable: counter("starling_history_undecodable_records_total", "Records of tracks that could not be decoded and left no rows in history."),
		lag:         prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_history_lag_seconds", Help: "Age of the oldest record of tracks that has been read for the lake of history and is not in it, over this process's partitions; 0 without one."}, lagSeconds),
	}
	for _, c := range []prometheus.Collector{m.owned, m.rows, m.files, m.bytes, m.batches, m.failures, m.gaps, m.undecodable, m.lag} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
