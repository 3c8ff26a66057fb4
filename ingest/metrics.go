package ingest

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// metrics are the package's resolved handles.
type metrics struct {
	reportsReceived, reportsAcked            prometheus.Counter
	fixesReceived, fixesAccepted, fixesAcked prometheus.Counter
	appendFailures                           map[string]prometheus.Counter // by ErrorInfo reason
	fixesRefused                             []prometheus.Counter          // by RefusalReason
	reportsRejected                          map[string]prometheus.Counter
	fieldsAbsent                             map[string]prometheus.Counter // by field
	reportsKeptBack                          prometheus.Counter
	streams, inFlightReports, inFlightBytes  prometheus.Gauge
	logSkew, deviceSkew                      prometheus.Gauge
	doubtByLog, doubtByDevices               prometheus.Gauge
	streamsEnded                             *prometheus.CounterVec
	appendSeconds                            prometheus.Histogram
}

// rejectedMalformed and rejectedTooLarge label reports that could not be read,
// rejectedVehicle those for a vehicle that is not the caller's, rejectedRate those of
// who sends too many.
const (
	rejectedMalformed = "malformed"
	rejectedTooLarge  = "message_too_large"
	rejectedVehicle   = "vehicle_not_permitted"
	rejectedRate      = "rate_exceeded"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_ingest_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_ingest_" + name, Help: help})
	}
	m := &metrics{
		reportsReceived: counter("reports_received_total", "Reports read from clients, resent ones included."),
		reportsAcked:    counter("reports_acknowledged_total", "Reports acknowledged to clients."),
		fixesReceived:   counter("fixes_received_total", "Fixes in the reports read from clients."),
		fixesAccepted:   counter("fixes_accepted_total", "Fixes that passed validation."),
		fixesAcked:      counter("fixes_acknowledged_total", "Accepted fixes of acknowledged reports."),
		appendFailures:  map[string]prometheus.Counter{},
		fieldsAbsent:    map[string]prometheus.Counter{},
		reportsKeptBack: counter("reports_kept_back_total", "Reports that broke a rule of time while the server's clock was in doubt: their stream or call ended with CLOCK_IN_DOUBT instead of an acknowledgement."),
		streams:         gauge("streams", "Open report streams."),
		inFlightReports: gauge("in_flight_reports", "Reports read and neither acknowledged nor given up."),
		inFlightBytes:   gauge("in_flight_bytes", "Bytes that the reports in flight are charged with."),
		streamsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_ingest_streams_ended_total", Help: "Report streams that have ended, by gRPC status code.",
		}, []string{"code"}),
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_ingest_append_seconds", Help: "Time from handing a report to the log to its being durable; a sample of at most one report in flight per stream.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_ingest_fixes_refused_total", Help: "Fixes refused, by validation rule.",
	}, []string{"reason"})
	absent := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_ingest_fields_absent_total", Help: "Values of -1 that were taken for an unknown value and left out, by field.",
	}, []string{"field"})
	for i := range unknownRules {
		m.fieldsAbsent[unknownRules[i].field] = absent.WithLabelValues(unknownRules[i].field)
	}
	skew, doubt := m.clockGauges()
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_ingest_append_failures_total", Help: "Reports that found no capacity, or that the log refused or did not confirm, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{reasonLogFull, reasonLogSlow, reasonOutcomeUnknown, reasonShuttingDown} {
		m.appendFailures[reason] = failures.WithLabelValues(strings.ToLower(reason))
	}
	for i := range len(starlingv1.RefusalReason_name) {
		m.fixesRefused = append(m.fixesRefused, refused.WithLabelValues(reasonLabel(starlingv1.RefusalReason(i))))
	}
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_ingest_reports_rejected_total", Help: "Reports rejected as a whole, by rule.",
	}, []string{"rule"})
	m.reportsRejected = map[string]prometheus.Counter{
		rejectedMalformed: rejected.WithLabelValues(rejectedMalformed),
		rejectedTooLarge:  rejected.WithLabelValues(rejectedTooLarge),
		rejectedVehicle:   rejected.WithLabelValues(rejectedVehicle),
		rejectedRate:      rejected.WithLabelValues(rejectedRate),
	}
	for _, rule := range reportRules {
		m.reportsRejected[rule.name] = rejected.WithLabelValues(rule.name)
	}
	for _, c := range []prometheus.Collector{
		m.reportsReceived, m.reportsAcked, m.fixesReceived, m.fixesAccepted, m.fixesAcked, failures,
		m.streams, m.inFlightReports, m.inFlightBytes, m.streamsEnded, m.appendSeconds, refused, rejected,
		m.reportsKeptBack, absent, skew, doubt,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register ingest metrics: %w", err)
		}
	}
	return m, nil
}

// clockGauges makes the gauges of the server's clock against the log's and the
// devices'.
func (m *metrics) clockGauges() (skew, doubt *prometheus.GaugeVec) {
	skew = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_ingest_clock_skew_seconds", Help: "By how much the log's append times, or the clock that most vehicles' devices share, are ahead of this server's wall clock; 0 while unknown.",
	}, []string{"against"})
	doubt = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_ingest_clock_in_doubt", Help: "1 while the log's append times, or most vehicles' devices, contradict this server's wall clock.",
	}, []string{"by"})
	m.logSkew, m.deviceSkew = skew.WithLabelValues("log"), skew.WithLabelValues("devices")
	m.doubtByLog, m.doubtByDevices = doubt.WithLabelValues("log"), doubt.WithLabelValues("devices")
	return skew, doubt
}

// reasonLabel is a refusal reason as a metric's label.
func reasonLabel(r starlingv1.RefusalReason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REFUSAL_REASON_"))
}
