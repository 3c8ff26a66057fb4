package kafkalog

import (
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// metrics holds resolved handles. It is also a hook of every client, so that
// the brokers' answering times are seen whoever asks.
type metrics struct {
	appended    map[string]prometheus.Counter // by topic name without prefix
	errors      map[string]prometheus.Counter // by class
	buffered    prometheus.Gauge
	produceTime prometheus.Observer
	fetched     map[string]prometheus.Counter
	checkpoint  prometheus.Observer
	loadTime    prometheus.Observer
	owned       prometheus.Gauge
	connections prometheus.Gauge
}

// Classes of append errors.
const (
	classTimeout  = "timeout"
	classTooLarge = "too_large"
	classClosed   = "closed"
	classBroker   = "broker"
)

func newMetrics(reg prometheus.Registerer, topicNames []string) (*metrics, error) {
	appended := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_kafkalog_appended_records_total", Help: "Records that the brokers have acknowledged."}, []string{"topic"})
	fetched := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_kafkalog_fetched_records_total", Help: "Records that readers have been given."}, []string{"topic"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_kafkalog_append_errors_total", Help: "Appends that failed, by class: timeout, too_large, closed or broker (an answer that says no)."}, []string{"class"})
	buffered := prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_kafkalog_buffered_bytes", Help: "Bytes of records that wait for the brokers' acknowledgement."})
	produce := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "starling_kafkalog_produce_request_seconds", Help: "Time from writing a produce request to reading its answer.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)})
	checkpoint := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "starling_kafkalog_checkpoint_seconds", Help: "Time of a checkpoint's transaction.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)})
	load := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "starling_kafkalog_load_seconds", Help: "Time to fence earlier owners of a partition and read its state.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)})
	owned := prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_kafkalog_owned_partitions", Help: "Partitions that this process owns."})
	connections := prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_kafkalog_connections", Help: "Open connections to brokers."})
	for _, c := range []prometheus.Collector{appended, fetched, failed, buffered, produce, checkpoint, load, owned, connections} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	m := &metrics{
		appended: make(map[string]prometheus.Counter), fetched: make(map[string]prometheus.Counter), errors: make(map[string]prometheus.Counter),
		buffered: buffered, produceTime: produce, checkpoint: checkpoint, loadTime: load, owned: owned, connections: connections,
	}
	for _, t := range topicNames {
		m.appended[t], m.fetched[t] = appended.WithLabelValues(t), fetched.WithLabelValues(t)
	}
	for _, class := range []string{classTimeout, classTooLarge, classClosed, classBroker} {
		m.errors[class] = failed.WithLabelValues(class)
	}
	return m, nil
}

// unregistered returns metrics that nobody sees, for clients that do not
// append.
func unregistered() *metrics {
	m, err := newMetrics(prometheus.NewRegistry(), nil)
	if err != nil {
		panic(err) // a fresh registry refuses nothing that is registered once
	}
	return m
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (m *metrics) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == int16(kmsg.Produce) && e2e.Err() == nil {
		m.produceTime.Observe(e2e.DurationE2E().Seconds())
	}
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (m *metrics) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		m.connections.Inc()
	}
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (m *metrics) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { m.connections.Dec() }

var (
	_ kgo.HookBrokerE2E        = (*metrics)(nil)
	_ kgo.HookBrokerConnect    = (*metrics)(nil)
	_ kgo.HookBrokerDisconnect = (*metrics)(nil)
)
