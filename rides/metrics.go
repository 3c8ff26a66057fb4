package rides

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

type metrics struct {
	owned       prometheus.Gauge
	events      *prometheus.CounterVec
	records     *prometheus.CounterVec
	proposals   prometheus.Counter
	refused     prometheus.Counter
	estimates   prometheus.Counter
	round       prometheus.Histogram
	subscribers prometheus.Gauge
	resumes     *prometheus.CounterVec

	storeFailures, unpublished, ownerFailures, found, deadLetters, tooMany prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		owned:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_rides_owned_partitions", Help: "Partitions of rides that this process owns and leads."}),
		events:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_rides_events_total", Help: "Events of rides that this process has read back, by kind."}, []string{"kind"}),
		records:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_rides_records_total", Help: "Records of rides that owners of this process have read, by verdict; voided are those of owners that had been replaced."}, []string{"verdict"}),
		proposals:   prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_proposals_total", Help: "Vehicles that were asked for a ride."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_proposals_refused_total", Help: "Proposals that led to nothing: the vehicle's tracker refused it, or it was lost. A ride of another process may have taken the vehicle."}),
		estimates:   prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_estimates_failed_total", Help: "Rides whose candidates were ranked by distance because the estimate of travel times failed."}),
		round:       prometheus.NewHistogram(prometheus.HistogramOpts{Name: "starling_rides_match_seconds", Help: "How long a round of matching takes that has proposed something, in seconds, without the searches.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_rides_subscribers", Help: "Open subscriptions of ride and vehicle events."}),
	}
	m.resumes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_rides_resumes_total", Help: "Times that events of a ride whose partition is owned elsewhere were asked for, by who had them: store, owner or log."}, []string{"source"})
	m.storeFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_store_failures_total", Help: "Calls of the store of events (Redis) that failed. Events are then asked of their owners."})
	m.unpublished = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_unpublished_events_total", Help: "Events that the store was not given; nodes find them when they compare."})
	m.ownerFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_comparison_failures_total", Help: "Comparisons of followed rides that their owner did not answer."})
	m.found = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_events_found_total", Help: "Rides of which a comparison with the owner found an event that no push had brought."})
	m.deadLetters = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_dead_letters_total", Help: "Requests about rides that could not be decoded and are dead letters."})
	m.tooMany = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_rides_too_many_total", Help: "Rides that were refused because their rider had as many as one may have."})
	for _, c := range []prometheus.Collector{m.deadLetters, m.tooMany, m.owned, m.events, m.records, m.proposals, m.refused, m.estimates, m.round, m.subscribers, m.resumes, m.storeFailures, m.unpublished, m.ownerFailures, m.found} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func kindLabel(k starlingv1.RideEventKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "RIDE_EVENT_KIND_"))
}

func verdictLabel(v life.Verdict) string {
	return [...]string{"took_over", "happened", "voided", "out_of_sequence", "impossible", "queue_changed"}[v]
}
