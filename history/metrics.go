package history

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	owned                                           prometheus.Gauge
	rows, files, bytes, failures, gaps, undecodable prometheus.Counter
	batches, hours, joined, erasures                prometheus.Counter
	lag                                             prometheus.GaugeFunc
}

// newMetrics registers the metrics of one sink; lagSeconds is asked at every scrape.
func newMetrics(r prometheus.Registerer, sink string, lagSeconds func() float64) (*metrics, error) {
	labels := prometheus.Labels{"sink": sink}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		owned:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_history_owned_partitions", Help: "Partitions of tracks that this process writes to a sink of history.", ConstLabels: labels}),
		rows:        counter("starling_history_rows_total", "Rows that were written to a sink of history."),
		files:       counter("starling_history_files_total", "Parquet files that were written to the lake of history, or inserts into ClickHouse."),
		bytes:       counter("starling_history_written_bytes_total", "Bytes of the Parquet files that were written to the lake of history."),
		batches:     counter("starling_history_batches_total", "Batches of rows that a sink of history has taken."),
		failures:    counter("starling_history_write_failures_total", "Writes of a batch to a sink of history that failed, and passes over its statistics of cells or over files to join; they are tried again."),
		gaps:        counter("starling_history_gaps_total", "Ranges of tracks that a sink of history will never have: deleted before they were read, or given up by history.max_lag."),
		erasures:    counter("starling_history_erasures_total", "Erasures of a vehicle's fixes that a sink of history has carried out."),
		hours:       counter("starling_history_rollups_total", "Times that the statistics of cells of an hour were computed anew."),
		joined:      counter("starling_history_joined_files_total", "Parquet files of the lake of history that were joined into larger ones."),
		undecodable: counter("starling_history_undecodable_records_total", "Records of tracks that could not be decoded and left no rows in a sink of history."),
		lag:         prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_history_lag_seconds", Help: "Age of the oldest record of tracks that has been read for a sink of history and is not in it, over this process's partitions; 0 without one.", ConstLabels: labels}, lagSeconds),
	}
	for _, c := range []prometheus.Collector{m.owned, m.rows, m.files, m.bytes, m.batches, m.failures, m.gaps, m.hours, m.joined, m.erasures, m.undecodable, m.lag} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
