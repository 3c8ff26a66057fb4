package step_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/modeltest/slow"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

const second, minute, hour = 1000, 60_000, 3_600_000

// drawScript draws what a few quarrelsome devices send, with switches to other
// settings now and then.
func drawScript(t *rapid.T) script {
	s := script{settings: step.DefaultSettings()}
	s.settings.WindowMaxFixes = rapid.SampledFrom([]int{1, 3, 8, 1024}).Draw(t, "window_max_fixes")
	s.settings.WindowMS = rapid.SampledFrom([]int64{0, 5 * second, 30 * second}).Draw(t, "window")
	s.settings.ForgetAfterMS = rapid.SampledFrom([]int64{5 * minute, 24 * hour}).Draw(t, "forget_after")
	clock := int64(noonMS)
	highest := map[string]int64{}
	skew := map[string]int64{}
	for range rapid.IntRange(1, 60).Draw(t, "records") {
		clock += rapid.SampledFrom([]int64{0, 10, second, second, second, 5 * second, 31 * second, 61 * second, 6 * minute, -second}).Draw(t, "pause")
		rec := step.Record{Offset: int64(len(s.records)), AppendTimeMS: clock}
		vehicle := rapid.SampledFrom([]string{"tick", "a", "a", "a", "a", "b", "c", "switch"}).Draw(t, "vehicle")
		switch vehicle {
		case "tick":
			rec.Value = (&wire.Location{Kind: wire.KindTick}).Append(nil)
		case "switch":
			rec.Value = drawSwitch(t, s.settings)
		default:
			if rapid.IntRange(0, 9).Draw(t, "jump") == 0 {
				skew[vehicle] = rapid.SampledFrom([]int64{0, hour, -hour, -minute}).Draw(t, "skew")
			}
			r := drawReport(t, clock+skew[vehicle], vehicle, highest)
			rec.Key, rec.Value = []byte(vehicle), (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil)
		}
		s.records = append(s.records, rec)
	}
	return s
}

func drawSwitch(t *rapid.T, settings step.Settings) []byte {
	settings.WindowMS = rapid.SampledFrom([]int64{0, 10 * second, minute}).Draw(t, "new_window")
	settings.RepeatIntervalMS = rapid.SampledFrom([]int64{10 * second, minute}).Draw(t, "new_repeat")
	settings.H3Resolution = rapid.IntRange(5, 12).Draw(t, "new_resolution")
	settings.Filter.MinAccuracyM = rapid.SampledFrom([]float64{0.5, 20}).Draw(t, "new_min_accuracy")
	settings.Filter.DefaultAccuracyM = rapid.SampledFrom([]float64{2, 40}).Draw(t, "new_default_accuracy")
	l := wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{StepVersion: step.Newest, Settings: settings.Encode()}}
	return l.Append(nil)
}

func drawReport(t *rapid.T, deviceClock int64, vehicle string, highest map[string]int64) wire.Report {
	r := wire.Report{SessionID: rapid.SampledFrom([]uint64{1, 1, 1, 1, 1, 1, 2, 3, 4, 5}).Draw(t, "session")}
	key := vehicle + string(rune('0'+r.SessionID))
	r.Sequence = max(1, highest[key]+rapid.SampledFrom([]int64{1, 1, 1, 1, 1, 2, 0, -1, -2, -64, -65, 70}).Draw(t, "sequence"))
	highest[key] = max(highest[key], r.Sequence)
	for range rapid.IntRange(0, 8).Draw(t, "fixes") {
		r.Fixes = append(r.Fixes, drawFix(t, deviceClock))
	}
	r.Availability = starlingv1.Availability(rapid.IntRange(0, 4).Draw(t, "availability"))
	if rapid.IntRange(0, 4).Draw(t, "has_attributes") == 0 {
		r.HasAttributes = true
		r.Attributes = wire.Attributes{Type: rapid.SampledFrom([]string{"", "van", "bus"}).Draw(t, "type"), Seats: 4, Tags: []string{"clean"}}
	}
	return r
}

func drawFix(t *rapid.T, deviceClock int64) wire.Fix {
	back := rapid.SampledFrom([]int64{0, 0, 1, 2, 3, 4, 5, 6, 8, 15, 29, 30, 31, 40, 90}).Draw(t, "back")
	f := wire.Fix{
		DeviceTimeMS: deviceClock/second*second - back*second,
		LatDeg:       30.27 + float64(rapid.IntRange(-2000, 2000).Draw(t, "lat"))*1e-6,
		LonDeg:       179.9999 + float64(rapid.IntRange(-2, 2).Draw(t, "lon"))*3e-5,
	}
	if rapid.Bool().Draw(t, "details") {
		f.Has = wire.HasAccuracy | wire.HasSpeed | wire.HasHeading | wire.HasMocked
		f.AccuracyM, f.SpeedMPS, f.HeadingDeg, f.Mocked = 4, 13.5, 270.5, true
	}
	return f
}

func TestStepAnswersAsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		p, err := step.NewPartition(s.settings, 1)
		require.NoError(t, err)
		m := slow.New(s.settings, 1)
		for _, rec := range s.records {
			r, err := p.Step(rec)
			require.NoError(t, err)
			require.NoError(t, r.Poison)
			want, poison := m.Step(eventlog.Stored(rec))
			require.NoError(t, poison)
			requireSameTrack(t, want, r)
		}
	})
}

func requireSameTrack(t require.TestingT, want wire.Track, got step.Result) {
	if string(want.Append(nil)) == string(got.Track.Append(nil)) {
		return
	}
	var a, b strings.Builder
	got.Poison = nil
	describe(&b, got)
	describe(&a, step.Result{Track: &want, Rebased: got.Rebased})
	require.Equal(t, a.String(), b.String(), "offset %d", want.SourceOffset)
	require.Equal(t, want, *got.Track)
	require.Fail(t, "the encodings differ")
}

func TestRestartsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		undisturbed := stepAll(t, s, func(int) bool { return false })
		restarts := rapid.SliceOfN(rapid.Bool(), len(s.records), len(s.records)).Draw(t, "restarts")
		require.Equal(t, undisturbed, stepAll(t, s, func(i int) bool { return restarts[i] }))
	})
}

// Whatever the order in which reports within the window come, the vehicle is in
// the same place afterwards, and history has the same final points.
func TestOrderWithinTheWindowDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 25).Draw(t, "reports")
		var reports []wire.Report
		for i := range n {
			f := drawFix(t, noonMS)
			f.DeviceTimeMS = noonMS + int64(i)*second
			reports = append(reports, wire.Report{SessionID: 1, Sequence: int64(i) + 1, Fixes: []wire.Fix{f}})
		}
		inOrder, finalInOrder := liveAfter(t, reports)
		shuffled, finalShuffled := liveAfter(t, rapid.Permutation(reports).Draw(t, "order"))
		require.Equal(t, inOrder, shuffled)
		require.Equal(t, finalInOrder, finalShuffled)
	})
}

// liveAfter answers the live view after the reports, and all final points once
// time has closed the window.
func liveAfter(t require.TestingT, reports []wire.Report) (wire.View, []wire.TrackPoint) {
	p, err := step.NewPartition(step.DefaultSettings(), 1)
	require.NoError(t, err)
	var live wire.View
	for i, r := range reports {
		result, err := p.Step(step.Record{Offset: int64(i), AppendTimeMS: noonMS + 25*second, Key: []byte("a"), Value: (&wire.Location{Kind: wire.KindReport, Report: r}).Append(nil)})
		require.NoError(t, err)
		require.Empty(t, result.Track.FinalPoints)
		live = result.Track.Live
	}
	result, err := p.Step(step.Record{Offset: int64(len(reports)), AppendTimeMS: noonMS + 25*second + minute, Value: (&wire.Location{Kind: wire.KindTick}).Append(nil)})
	require.NoError(t, err)
	require.Len(t, result.Track.Fired, 1)
	return live, result.Track.Fired[0].FinalPoints
}

func TestStepRefusesAnOffsetThatDoesNotAdvance(t *testing.T) {
	p := newPartition(t)
	tick := (&wire.Location{Kind: wire.KindTick}).Append(nil)
	_, err := p.Step(step.Record{Offset: 5, AppendTimeMS: noonMS, Value: tick})
	require.NoError(t, err)
	_, err = p.Step(step.Record{Offset: 5, AppendTimeMS: noonMS, Value: tick})
	require.ErrorContains(t, err, "offset 5 comes after offset 5")
	require.Equal(t, int64(5), p.Offset())
}

func TestVersionSwitchCarriesItsProof(t *testing.T) {
	settings := step.DefaultSettings()
	settings.WindowMS = 10 * second
	l, err := step.NewVersionSwitch(step.Newest, settings)
	require.NoError(t, err)
	again, err := step.NewVersionSwitch(step.Newest, settings)
	require.NoError(t, err)
	require.Equal(t, l, again)
	other, err := step.NewVersionSwitch(step.Newest, step.DefaultSettings())
	require.NoError(t, err)
	require.NotEqual(t, l.Switch.GoldenDigest, other.Switch.GoldenDigest)

	p := newPartition(t)
	r, err := p.Step(step.Record{Offset: 0, AppendTimeMS: noonMS, Value: l.Append(nil)})
	require.NoError(t, err)
	require.False(t, r.Track.HasLive)
	require.Equal(t, settings, p.Settings())

	l.Switch.GoldenDigest = other.Switch.GoldenDigest
	_, err = p.Step(step.Record{Offset: 1, AppendTimeMS: noonMS, Value: l.Append(nil)})
	require.ErrorContains(t, err, "golden outputs have the digest")
	l.Switch.Settings = []byte(`{"window_ms":-1}`)
	_, err = p.Step(step.Record{Offset: 1, AppendTimeMS: noonMS, Value: l.Append(nil)})
	require.ErrorContains(t, err, "settings are not its own")
	require.Equal(t, int64(0), p.Offset())
	require.Equal(t, settings, p.Settings())

	settings.H3Resolution = 99
	_, err = step.NewVersionSwitch(step.Newest, settings)
	require.ErrorContains(t, err, "h3_resolution")
}

// History gets every accepted fix exactly once, and those alone.
func TestEveryAcceptedFixIsFinalOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScript(t)
		p, err := step.NewPartition(s.settings, 1)
		require.NoError(t, err)
		type fix struct {
			vehicle string
			wire.Fix
		}
		open := map[fix]int{} // accepted and not yet final
		accepted := int64(0)
		for i := range len(s.records) + 4 {
			rec := step.Record{Offset: int64(i), AppendTimeMS: p.StreamTimeMS() + 55*second, Value: (&wire.Location{Kind: wire.KindTick}).Append(nil)}
			if i < len(s.records) {
				rec = s.records[i]
			}
			r, err := p.Step(rec)
			require.NoError(t, err)
			accepted += r.Track.Counts.Accepted - int64(len(r.Track.Points))
			require.Zero(t, accepted, "a point for each accepted fix")
			for _, point := range r.Track.Points {
				open[fix{string(rec.Key), point.Fix}]++
			}
			closeFixes := func(vehicle string, points []wire.TrackPoint) {
				for _, point := range points {
					f := fix{vehicle, point.Fix}
					require.Positive(t, open[f], "final, but not open")
					open[f]--
				}
			}
			closeFixes(string(rec.Key), r.Track.FinalPoints)
			for _, d := range r.Track.Fired {
				closeFixes(d.VehicleID, d.FinalPoints)
			}
		}
		for f, n := range open {
			require.Zero(t, n, "%v is not final in the end", f)
		}
	})
}

// Looking ahead changes nothing of what a step does, whichever vehicles it is for.
func TestWarmChangesNothing(t *testing.T) {
	ahead, plain, f := newPartition(t), newPartition(t), newFleet(300, 7)
	ahead.Warm(f.ids) // none is known yet
	for range 12 {
		f.round()
		for i, rec := range f.records {
			ahead.Warm(append([][]byte{[]byte("nobody"), nil}, f.ids[i:]...))
			a, err := ahead.Step(rec)
			require.NoError(t, err)
			p, err := plain.Step(rec)
			require.NoError(t, err)
			require.Equal(t, p.Track.Append(nil), a.Track.Append(nil), "offset %d", rec.Offset)
		}
	}
}
