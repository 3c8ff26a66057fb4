package tracker_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// lines collects what a logger writes.
type lines struct {
	mu  sync.Mutex
	out bytes.Buffer // under mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

// count is how many lines have a text.
func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.out.String(), text)
}

// measured is a tracker whose metrics and log lines are looked at.
type measured struct {
	*running
	registry *prometheus.Registry
	log      *memlog.Log
	lines    *lines
	// aheadMS is what is added to the log's stamps.
	aheadMS *atomic.Int64
}

func startMeasured(t *testing.T, change func(*tracker.Config)) *measured {
	m := &measured{registry: prometheus.NewRegistry(), lines: &lines{}, aheadMS: &atomic.Int64{}}
	m.log = open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{MayStepBack: true, Now: func() time.Time {
		return time.Now().Add(time.Duration(m.aheadMS.Load()) * time.Millisecond)
	}})
	m.run(t, change)
	return m
}

// run starts the tracker.
func (m *measured) run(t *testing.T, change func(*tracker.Config)) {
	cfg := tracker.DefaultConfig()
	change(&cfg)
	tr, err := tracker.New(cfg, tracker.Deps{Log: m.log, Registerer: m.registry, Logger: slog.New(slog.NewTextHandler(m.lines, nil))})
	require.NoError(t, err)
	m.running = runTracker(t, tr)
}

// values are the metrics by name and labels, histograms by their count.
func (m *measured) values() map[string]float64 {
	m.t.Helper()
	families, err := m.registry.Gather()
	require.NoError(m.t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, sample := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "starling_tracker_")
			for _, label := range sample.Label {
				name += fmt.Sprintf("{%s=%s}", label.GetName(), label.GetValue())
			}
			switch {
			case sample.Counter != nil:
				out[name] = sample.Counter.GetValue()
			case sample.Gauge != nil:
				out[name] = sample.Gauge.GetValue()
			case sample.Histogram != nil:
				out[name] = float64(sample.Histogram.GetSampleCount())
			}
		}
	}
	return out
}

// requireValues compares some of the metrics.
func (m *measured) requireValues(want map[string]float64) {
	m.t.Helper()
	got := m.values()
	for name, value := range want {
		require.Contains(m.t, got, name)
		require.InDelta(m.t, value, got[name], 1e-6, name)
	}
}

// What the tracker does is counted, in the units and under the labels that
// dashboards and alarms go by.
func TestMetricsCountWhatWasStepped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMeasured(t, func(c *tracker.Config) { c.MaxVehicles = 2 })
		send(t, m.log, 1, 1) // two fixes
		send(t, m.log, 1, 1) // a copy
		time.Sleep(100 * time.Millisecond)
		send(t, m.log, 2, 1)
		send(t, m.log, 3, 1) // the partition is full
		report := wire.Report{SessionID: 1, Sequence: 2, Fixes: []wire.Fix{
			{DeviceTimeMS: time.Now().Add(-time.Hour).UnixMilli(), LatDeg: 30, LonDeg: 10},
			{DeviceTimeMS: time.Now().Add(time.Hour).UnixMilli(), LatDeg: 30, LonDeg: 10},
		}}
		appendTo(t, m.log, "v-1", wire.Location{Kind: wire.KindReport, Report: report})
		require.NoError(t, m.log.Append(t.Context(), topics.Locations, 0, eventlog.Record{Key: []byte("v-1"), Value: []byte{0xff}}, ignore{}))
		time.Sleep(100 * time.Millisecond)
		m.requireValues(map[string]float64{
			"records_total{kind=report}": 5, "records_total{kind=poison}": 1, "records_total{kind=tick}": 0,
			"fixes_total{result=accepted}": 4, "fixes_total{result=duplicate}": 2, "fixes_total{result=conflict}": 0,
			"fixes_total{result=late}": 1, "fixes_total{result=set_aside}": 1, "fixes_total{result=refused}": 2,
			"refused_reports_total{reason=partition_full}": 1,
			"vehicles": 2, "partitions": 1, "full_partitions": 1, "lag_records{partition=0}": 0,
			"load_duration_seconds": 1, "forgotten_total": 0,
		})
		require.Equal(t, 1, m.lines.count("goes to the dead letters"))
		alarmtest.Raised(t, m.registry, `starling_tracker_records_total{kind="poison"}`)
		alarmtest.Raised(t, m.registry, "starling_tracker_full_partitions")
		alarmtest.Raised(t, m.registry, "starling_tracker_refused_reports_total")
		time.Sleep(11 * time.Minute) // v-2 has reported once
		got := m.values()
		m.requireValues(map[string]float64{
			"vehicles": 1, "full_partitions": 0, "forgotten_total": 1, "final_points_total": 4,
			"stream_time_timestamp_seconds{partition=0}": float64(time.Now().UnixMilli()/1000*1000)/1000 + 0.1,
		})
		require.Greater(t, got["records_total{kind=tick}"], 600.0)
		require.Greater(t, got["checkpoints_total"], 60.0)
		require.Equal(t, got["checkpoints_total"], got["checkpoint_duration_seconds"])
		require.Greater(t, got["checkpoint_bytes_total"], 1000.0)
		m.stop()
		m.requireValues(map[string]float64{"vehicles": 0, "partitions": 0, "full_partitions": 0})
		require.NotContains(t, m.values(), "lag_records{partition=0}", "a partition that is not owned has no lag")
	})
}

// A jump of the log's stamps is reported when it begins and when it is believed,
// once each, and shows in the metrics meanwhile.
func TestAJumpOfTheStampsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMeasured(t, func(*tracker.Config) {})
		send(t, m.log, 1, 1)
		time.Sleep(3 * time.Second)
		m.requireValues(map[string]float64{"stream_time_jumps_pending": 0})
		require.Zero(t, m.lines.count("stamps have jumped"))
		m.aheadMS.Store(3 * hour)
		time.Sleep(10 * time.Second) // of ticks
		m.requireValues(map[string]float64{"stream_time_jumps_pending": 1, "stream_time_jumps_total{direction=forward}": 0})
		alarmtest.Raised(t, m.registry, "starling_tracker_stream_time_jumps_pending")
		require.Equal(t, 1, m.lines.count("stamps have jumped"))
		require.Equal(t, 1, m.lines.count("by=3h0m1s believed_after=30s"))
		time.Sleep(30 * time.Second)
		m.requireValues(map[string]float64{"stream_time_jumps_pending": 0, "stream_time_jumps_total{direction=forward}": 1, "stream_time_jumps_total{direction=back}": 0})
		require.Equal(t, 1, m.lines.count("stream time follows a jump"))
		m.aheadMS.Store(0)
		time.Sleep(40 * time.Second)
		m.requireValues(map[string]float64{"stream_time_jumps_pending": 0, "stream_time_jumps_total{direction=back}": 1})
		require.Equal(t, 2, m.lines.count("stamps have jumped"))
		require.Equal(t, 2, m.lines.count("stream time follows a jump"))
		alarmtest.Raised(t, m.registry, `starling_tracker_stream_time_jumps_total{direction="back"}`)
		// One broken stamp: reported, and withdrawn by the next.
		m.aheadMS.Store(3 * hour)
		time.Sleep(time.Second)
		m.aheadMS.Store(0)
		time.Sleep(5 * time.Second)
		m.requireValues(map[string]float64{"stream_time_jumps_pending": 0, "stream_time_jumps_total{direction=forward}": 1})
		m.stop()
	})
}

// A tracker whose tracks the log does not take falls behind, and claims its partitions
// again when the log has failed it.
func TestALogThatFailsATrackerIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, fail := make(chan struct{}), atomic.Bool{}
		m := &measured{registry: prometheus.NewRegistry(), lines: &lines{}}
		m.log = open(t, memlog.NewStore(1, topics.All(), 0), memlog.Options{MaxBatch: 1, BeforeAppend: failOn(topics.Tracks, func() error {
			<-held
			if fail.Swap(false) {
				return errors.New("the disk is on fire")
			}
			return nil
		})})
		for i := range 50 {
			send(t, m.log, i, 1)
		}
		m.run(t, func(c *tracker.Config) { c.MaxInFlightBytes = 1 << 10 })
		time.Sleep(time.Minute)
		alarmtest.RaisedTo(t, m.registry, "starling_tracker_lag_records", func(records float64) bool { return records > 20 })
		fail.Store(true)
		close(held)
		time.Sleep(time.Minute)
		alarmtest.Raised(t, m.registry, "starling_tracker_retries_total")
		m.requireValues(map[string]float64{"lag_records{partition=0}": 0})
		m.stop()
	})
}

// Two phones that report for one vehicle, and a phone whose clock is off, show.
func TestDoubtfulVehiclesAreAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMeasured(t, func(*tracker.Config) {})
		report := func(vehicle string, session uint64, sequence int64, ahead time.Duration) {
			fix := wire.Fix{DeviceTimeMS: time.Now().Add(ahead).UnixMilli(), LatDeg: 30, LonDeg: -97}
			appendTo(t, m.log, vehicle, wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: session, Sequence: sequence, Fixes: []wire.Fix{fix}}})
			time.Sleep(time.Second)
		}
		for i := range int64(5) {
			report("twice", 1, i+1, 0)
			report("twice", 2, i+1, 0)
			report("fast", 1, i+1, 25*time.Second)
		}
		alarmtest.Raised(t, m.registry, "starling_tracker_conflicting_vehicles")
		alarmtest.Raised(t, m.registry, "starling_tracker_device_clock_off_vehicles")
		m.requireValues(map[string]float64{"conflicting_vehicles": 1, "device_clock_off_vehicles": 1})
		m.stop()
	})
}
