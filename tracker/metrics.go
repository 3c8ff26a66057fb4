package tracker

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// metrics are the tracker's, with every handle resolved. What is replayed after
// a restart is counted again.
type metrics struct {
	reports, ticks, switches, poisoned    prometheus.Counter
	accepted, duplicate, conflict, late   prometheus.Counter
	setAside, refused, refusedReports     prometheus.Counter
	jumpsForward, jumpsBack               prometheus.Counter
	finalPoints, refreshed, forgotten     prometheus.Counter
	rebases, timerTicks                   prometheus.Counter
	vehicles, partitions                  prometheus.Gauge
	conflicting, clocksOff, jumpsPending  prometheus.Gauge
	full                                  prometheus.Gauge
	lag, streamTime                       *prometheus.GaugeVec
	checkpoints, checkpointBytes, retries prometheus.Counter
	checkpointSeconds, loadSeconds        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	register := func(c prometheus.Collector) {
		if err := reg.Register(c); err != nil {
			errs = append(errs, err)
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_tracker_" + name, Help: help})
		register(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "starling_tracker_" + name, Help: help})
		register(g)
		return g
	}
	byPartition := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "starling_tracker_" + name, Help: help}, []string{"partition"})
		register(g)
		return g
	}
	seconds := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "starling_tracker_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		})
		register(h)
		return h
	}
	by := func(label, name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_tracker_" + name, Help: help}, []string{label})
		register(c)
		return c
	}
	records := by("kind", "records_total", "Records of locations that were stepped, by kind.")
	fixes := by("result", "fixes_total", "Fixes by what became of them.")
	jumps := by("direction", "stream_time_jumps_total", "Jumps of the log's stamps that were believed after they had settled, by direction.")
	refusals := by("reason", "refused_reports_total", "Reports that were refused as a whole after they had been acknowledged, by reason.")
	m := &metrics{
		reports: records.WithLabelValues("report"), ticks: records.WithLabelValues("tick"),
		switches: records.WithLabelValues("version_switch"), poisoned: records.WithLabelValues("poison"),
		accepted: fixes.WithLabelValues("accepted"), duplicate: fixes.WithLabelValues("duplicate"),
		conflict: fixes.WithLabelValues("conflict"), late: fixes.WithLabelValues("late"),
		setAside: fixes.WithLabelValues("set_aside"), refused: fixes.WithLabelValues("refused"),
		refusedReports: refusals.WithLabelValues("partition_full"),
		full:           gauge("full_partitions", "Partitions that know as many vehicles as the settings of the log allow; reports of others are refused."),
		jumpsForward:   jumps.WithLabelValues("forward"), jumpsBack: jumps.WithLabelValues("back"),
		finalPoints:       counter("final_points_total", "Fixes whose reorder window has closed."),
		refreshed:         counter("refreshed_total", "Views of silent vehicles that were published again."),
		forgotten:         counter("forgotten_total", "Vehicles that were forgotten after a long silence."),
		rebases:           counter("rebases_total", "Vehicles that are followed at another device time because their clock had jumped."),
		timerTicks:        counter("timer_ticks_total", "Ticks that were appended because one record could not fire all expired timers."),
		vehicles:          gauge("vehicles", "Vehicles known to the partitions that this process owns."),
		conflicting:       gauge("conflicting_vehicles", "Vehicles for which two phones report."),
		clocksOff:         gauge("device_clock_off_vehicles", "Vehicles whose device's clock is known to be off by more than tracker.ahead_tolerance."),
		jumpsPending:      gauge("stream_time_jumps_pending", "Partitions whose newest stamps lie beyond a jump that is not believed yet; their timers stand still."),
		partitions:        gauge("partitions", "Partitions that this process owns."),
		lag:               byPartition("lag_records", "Offsets between the newest durable record of locations and the last that was stepped."),
		streamTime:        byPartition("stream_time_timestamp_seconds", "The partition's stream time, in seconds since the Unix epoch."),
		checkpoints:       counter("checkpoints_total", "Checkpoints that were stored."),
		checkpointBytes:   counter("checkpoint_bytes_total", "Bytes of state in the checkpoints that were stored."),
		retries:           counter("retries_total", "Times that the tracker gave up its partitions because the log failed, and claimed them again."),
		checkpointSeconds: seconds("checkpoint_duration_seconds", "Time from the snapshot to the stored checkpoint."),
		loadSeconds:       seconds("load_duration_seconds", "Time to restore a partition from its checkpoints."),
	}
	return m, errors.Join(errs...)
}

// tally gathers the counts of one batch, so that metrics cost per batch and not
// per fix.
type tally struct {
	reports, ticks, switches, poisoned int
	fixes                              wire.FixCounts
	finalPoints, refreshed, forgotten  int
	rebases, refusedReports            int
	jumpsForward, jumpsBack            int
}

func (c *tally) add(r *step.Result) {
	switch {
	case r.Poison != nil:
		c.poisoned++
	case r.Kind == wire.KindReport:
		c.reports++
	case r.Kind == wire.KindTick:
		c.ticks++
	case r.Kind == wire.KindVersionSwitch:
		c.switches++
	}
	if r.Rebased {
		c.rebases++
	}
	if r.Track.Refusal != 0 {
		c.refusedReports++
	}
	switch {
	case r.BelievedMS > 0:
		c.jumpsForward++
	case r.BelievedMS < 0:
		c.jumpsBack++
	}
	c.fixes.Accepted += r.Track.Counts.Accepted
	c.fixes.Duplicate += r.Track.Counts.Duplicate
	c.fixes.Conflict += r.Track.Counts.Conflict
	c.fixes.Late += r.Track.Counts.Late
	c.fixes.SetAside += r.Track.Counts.SetAside
	c.fixes.Refused += r.Track.Counts.Refused
	c.finalPoints += len(r.Track.FinalPoints)
	for i := range r.Track.Fired {
		d := &r.Track.Fired[i]
		c.finalPoints += len(d.FinalPoints)
		if d.HasLive {
			c.refreshed++
		}
		if d.Forgotten {
			c.forgotten++
		}
	}
}

func (c *tally) flush(m *metrics) {
	m.reports.Add(float64(c.reports))
	m.ticks.Add(float64(c.ticks))
	m.switches.Add(float64(c.switches))
	m.poisoned.Add(float64(c.poisoned))
	m.accepted.Add(float64(c.fixes.Accepted))
	m.duplicate.Add(float64(c.fixes.Duplicate))
	m.conflict.Add(float64(c.fixes.Conflict))
	m.late.Add(float64(c.fixes.Late))
	m.setAside.Add(float64(c.fixes.SetAside))
	m.refused.Add(float64(c.fixes.Refused))
	m.refusedReports.Add(float64(c.refusedReports))
	m.jumpsForward.Add(float64(c.jumpsForward))
	m.jumpsBack.Add(float64(c.jumpsBack))
	m.finalPoints.Add(float64(c.finalPoints))
	m.refreshed.Add(float64(c.refreshed))
	m.forgotten.Add(float64(c.forgotten))
	m.rebases.Add(float64(c.rebases))
	*c = tally{}
}

// partitionMetrics are the gauges of one partition while it is owned.
type partitionMetrics struct {
	all             *metrics
	label           string
	lag, streamTime prometheus.Gauge
	// shares are what the partition has added to the gauges of all.
	vehicles, conflicting, clocksOff, jumpsPending, full share
}

// share is one partition's part of a gauge that sums all.
type share struct {
	of    prometheus.Gauge
	value int
}

func (s *share) set(value int) {
	if value != s.value {
		s.of.Add(float64(value - s.value))
		s.value = value
	}
}

func (m *metrics) own(partition int32) *partitionMetrics {
	label := strconv.Itoa(int(partition))
	m.partitions.Inc()
	return &partitionMetrics{
		all: m, label: label, lag: m.lag.WithLabelValues(label), streamTime: m.streamTime.WithLabelValues(label),
		vehicles: share{of: m.vehicles}, conflicting: share{of: m.conflicting},
		clocksOff: share{of: m.clocksOff}, jumpsPending: share{of: m.jumpsPending}, full: share{of: m.full},
	}
}

func (m *partitionMetrics) set(p *step.Partition, end int64) {
	m.lag.Set(float64(max(0, end-p.Offset()-1)))
	m.streamTime.Set(float64(p.StreamTimeMS()) / 1000)
	m.vehicles.set(p.Vehicles())
	m.conflicting.set(p.ConflictingVehicles())
	m.clocksOff.set(p.ClocksOff())
	m.jumpsPending.set(oneIf(p.JumpPending()))
	m.full.set(oneIf(p.Vehicles() >= p.Settings().MaxVehicles))
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func (m *partitionMetrics) release() {
	for _, s := range []*share{&m.vehicles, &m.conflicting, &m.clocksOff, &m.jumpsPending, &m.full} {
		s.set(0)
	}
	m.all.partitions.Dec()
	m.all.lag.DeleteLabelValues(m.label)
	m.all.streamTime.DeleteLabelValues(m.label)
}
