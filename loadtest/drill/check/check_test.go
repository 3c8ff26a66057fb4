package check_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

// world is everything that a drill leaves behind, in one partition.
type world struct {
	sent              check.Reports
	locations, tracks []eventlog.Stored
	fleet             map[string]*starlingv1.Vehicle
}

func (w *world) judge() *check.Checker { return w.judgeWith(nil) }

func (w *world) judgeWith(mayRebase func(string) bool) *check.Checker {
	c := check.New(w.sent, 1)
	c.MayRebase = mayRebase
	for _, rec := range w.locations {
		c.Location(0, rec)
	}
	for _, rec := range w.tracks {
		c.Track(0, rec)
	}
	c.Finish(w.fleet)
	return c
}

// newWorld has a real tracker answer the reports of three vehicles.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{sent: check.Reports{}, fleet: map[string]*starlingv1.Vehicle{}}
	log := memlog.New(1, memlog.Options{})
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	rng := rand.New(rand.NewPCG(1, 2))
	for seq := int64(1); seq <= 30; seq++ {
		for i := range 3 {
			w.report(t, log, rng, fmt.Sprintf("v%d", i), seq)
		}
	}
	w.append(t, log, "v0", &starlingv1.Report{SessionId: 7, Sequence: 31, Fixes: []*starlingv1.Fix{{DeviceTimeMs: farAheadMS, Latitude: 52, Longitude: 13}}})
	ctx, cancel := context.WithCancel(t.Context())
	tr, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	w.locations = log.Store().Records(topics.Locations, 0)
	require.Eventually(t, func() bool { return len(log.Store().Records(topics.Tracks, 0)) >= len(w.locations) }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	w.tracks = log.Store().Records(topics.Tracks, 0)[:len(w.locations)]
	for _, rec := range w.tracks {
		v := decode[starlingv1.TrackRecord](t, rec.Value).Live
		w.fleet[v.VehicleId] = &starlingv1.Vehicle{
			DeviceTime: timestamppb.New(time.UnixMilli(v.DeviceTimeMs)), SeenTime: timestamppb.New(time.UnixMilli(v.SeenTimeMs)),
			Position: &starlingv1.Position{Latitude: v.Latitude, Longitude: v.Longitude, VarEastM2: v.VarEastM2, CovEastNorthM2: v.CovEastNorthM2, VarNorthM2: v.VarNorthM2},
			SpeedMps: v.SpeedMps, HeadingDeg: v.HeadingDeg, Availability: v.Availability, Attributes: v.Attributes, FixCounts: v.FixCounts, Verdict: v.Verdict,
		}
	}
	return w
}

// farAheadMS is the device time of a fix that is set aside, in the year 2100.
const farAheadMS = 4_102_444_800_000

func (w *world) report(t *testing.T, log *memlog.Log, rng *rand.Rand, vehicle string, seq int64) {
	t.Helper()
	r := &starlingv1.Report{SessionId: 7, Sequence: seq, Availability: starlingv1.Availability(1 + rng.IntN(3))}
	for i := range int64(4) {
		r.Fixes = append(r.Fixes, &starlingv1.Fix{DeviceTimeMs: 1_700_000_000_000 + (seq*4+i)*1000, Latitude: 52 + rng.Float64()*0.0001, Longitude: 13})
	}
	report := w.append(t, log, vehicle, r)
	report.Fixes = append(report.Fixes, check.Fix{DeviceTimeMS: 1, Refusable: starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND})
	report.Refused = map[int32]starlingv1.RefusalReason{4: starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND}
}

// append puts a report into the log and into the account.
func (w *world) append(t *testing.T, log *memlog.Log, vehicle string, r *starlingv1.Report) *check.Report {
	t.Helper()
	report := &check.Report{Session: r.SessionId, Sequence: r.Sequence, Availability: r.Availability, Acknowledged: true}
	for _, f := range r.Fixes {
		report.Fixes = append(report.Fixes, check.Fix{DeviceTimeMS: f.DeviceTimeMs, Digest: check.DigestOf(f)})
	}
	w.sent[vehicle] = append(w.sent[vehicle], report)
	rec := eventlog.Record{Key: []byte(vehicle), Value: encode(t, &starlingv1.LocationRecord{Event: &starlingv1.LocationRecord_Report{Report: r}})}
	done := make(completion, 1)
	require.NoError(t, log.Append(t.Context(), topics.Locations, 0, rec, done))
	require.NoError(t, <-done)
	return report
}

type completion chan error

func (c completion) Done(_ int64, err error) { c <- err }

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

func decode[T any, P interface {
	*T
	proto.Message
}](t *testing.T, b []byte) P {
	t.Helper()
	m := P(new(T))
	require.NoError(t, proto.Unmarshal(b, m))
	return m
}

// change decodes the value of a record, changes it and puts it back.
func change[T any, P interface {
	*T
	proto.Message
}](t *testing.T, records []eventlog.Stored, at int, fn func(P)) {
	t.Helper()
	m := decode[T, P](t, records[at].Value)
	fn(m)
	records[at].Value = encode(t, m)
}

func TestNothingIsOffInAnUndisturbedRun(t *testing.T) {
	w := newWorld(t)
	// A tracker that was killed publishes some again.
	w.tracks = slices.Concat(w.tracks[:50], w.tracks[30:])
	c := w.judge()
	require.True(t, c.Findings.None(), "%s", &c.Findings)
	require.Equal(t, int64(20), c.Totals.Repeats)
	require.Equal(t, int64(3*30*4), c.Totals.Accepted)
	require.Equal(t, int64(3*30), c.Totals.Refused)
}

// TestAHoleThatIsFilledIsNone: a log refused one track, took the next, and the
// next owner published all of it again.
func TestAHoleThatIsFilledIsNone(t *testing.T) {
	w := newWorld(t)
	w.tracks = slices.Concat(w.tracks[:50], w.tracks[51:55], w.tracks[30:])
	c := w.judge()
	require.True(t, c.Findings.None(), "%s", &c.Findings)
	require.Equal(t, int64(4), c.Totals.Skipped)
	require.Equal(t, int64(20), c.Totals.Repeats)
}

// Each case damages one thing; the checker must name it.
func TestWhatIsOffIsFound(t *testing.T) {
	type track = starlingv1.TrackRecord
	type location = starlingv1.LocationRecord
	cases := map[string]struct {
		damage func(t *testing.T, w *world)
		found  string
	}{
		"a record of locations is gone": {func(_ *testing.T, w *world) { w.locations = slices.Delete(w.locations, 40, 41) }, check.Lost},
		"a fix of a record is gone": {func(t *testing.T, w *world) {
			change(t, w.locations, 40, func(m *location) { m.GetReport().Fixes = m.GetReport().Fixes[1:] })
		}, check.Altered},
		"a fix of a record differs": {func(t *testing.T, w *world) {
			change(t, w.locations, 40, func(m *location) { m.GetReport().Fixes[0].Latitude += 1e-9 })
		}, check.Altered},
		"a record that nobody sent":  {func(_ *testing.T, w *world) { w.sent["v1"] = w.sent["v1"][1:] }, check.Foreign},
		"a refusal was not reported": {func(_ *testing.T, w *world) { w.sent["v1"][3].Refused = nil }, check.RefusalOff},
		"a good fix was refused": {func(_ *testing.T, w *world) {
			w.sent["v1"][3].Refused[0] = starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_OLD
		}, check.RefusalOff},
		"a track is gone":             {func(_ *testing.T, w *world) { w.tracks = slices.Delete(w.tracks, 40, 41) }, check.Gap},
		"the last tracks are missing": {func(_ *testing.T, w *world) { w.tracks = w.tracks[:80] }, check.NoTrack},
		"a repeat differs": {func(t *testing.T, w *world) {
			w.tracks = slices.Concat(w.tracks[:50], slices.Clone(w.tracks[40:]))
			change(t, w.tracks, 50, func(m *track) { m.ClockMs++ })
		}, check.RepeatDiffers},
		"a fix counts twice": {func(t *testing.T, w *world) {
			change(t, w.tracks, 40, func(m *track) { m.Points[1] = m.Points[0] })
		}, check.FixNotOnce},
		"a fix is set aside, and counts as well": {func(t *testing.T, w *world) {
			change(t, w.tracks, 40, func(m *track) { m.SetAsideFixes = append(m.SetAsideFixes, m.Points[0].Fix) })
		}, check.FixNotOnce},
		"a fix stamped ahead counts": {func(_ *testing.T, w *world) { w.sent["v1"][3].Fixes[0].Ahead = true }, check.AheadCounts},
		"a fix is set aside twice": {func(t *testing.T, w *world) {
			change(t, w.tracks, len(w.tracks)-1, func(m *track) { m.SetAsideFixes = append(m.SetAsideFixes, m.SetAsideFixes[0]) })
		}, check.FixNotOnce},
		"a fix that was set aside is not reported": {func(t *testing.T, w *world) {
			change(t, w.tracks, len(w.tracks)-1, func(m *track) { m.SetAsideFixes = nil })
		}, check.FixNotOnce},
		"a fix is set aside that nobody sent": {func(t *testing.T, w *world) {
			change(t, w.tracks, len(w.tracks)-1, func(m *track) { m.SetAsideFixes[0].DeviceTimeMs++ })
		}, check.FixNotOnce},
		"set-aside fixes that are not counted": {func(t *testing.T, w *world) {
			change(t, w.tracks, len(w.tracks)-1, func(m *track) { m.FixCounts = nil })
		}, check.CountsOff},
		"counts do not add up": {func(t *testing.T, w *world) {
			change(t, w.tracks, 40, func(m *track) { m.FixCounts.Accepted-- })
		}, check.CountsOff},
		"a final point comes twice": {func(t *testing.T, w *world) {
			change(t, w.tracks, 80, func(m *track) { m.FinalPoints = append(m.FinalPoints, m.FinalPoints[0]) })
		}, check.FinalNotOnce},
		"a vehicle is not served":       {func(_ *testing.T, w *world) { delete(w.fleet, "v2") }, check.FleetDiffers},
		"a vehicle is served elsewhere": {func(_ *testing.T, w *world) { w.fleet["v2"].Position.Latitude += 1e-12 }, check.FleetDiffers},
		"a vehicle has an old availability": {func(t *testing.T, w *world) {
			change(t, w.tracks, len(w.tracks)-1, func(m *track) { m.Live.Availability = starlingv1.Availability_AVAILABILITY_ON_RIDE })
		}, check.Availability},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.damage(t, w)
			c := w.judge()
			require.Positive(t, c.Findings.Count(tc.found), "%s", &c.Findings)
		})
	}
	t.Run("a doubled final point of a vehicle that may be rebased", func(t *testing.T) {
		w := newWorld(t)
		change(t, w.tracks, 80, func(m *track) { m.FinalPoints = append(m.FinalPoints, m.FinalPoints[0]) })
		c := w.judgeWith(func(string) bool { return true })
		require.Equal(t, int64(1), c.Findings.Count(check.FinalNotOnce), "%s", &c.Findings)
	})
	t.Run("an undisturbed run differs", func(t *testing.T) {
		w := newWorld(t)
		c := w.judge()
		for i, rec := range w.tracks {
			c.Undisturbed(0, int64(i), rec.Value)
		}
		require.True(t, c.Findings.None(), "%s", &c.Findings)
		change(t, w.tracks, 5, func(m *track) { m.ClockMs++ })
		c.Undisturbed(0, 5, w.tracks[5].Value)
		require.Equal(t, int64(1), c.Findings.Count(check.ReplayDiffers))
	})
}
