package gpsfilter_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/gpsfilter"
)

func newFilter(t testing.TB) *gpsfilter.Filter {
	t.Helper()
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	require.NoError(t, err)
	return f
}

// anyFix draws a fix of any finite content at a valid coordinate.
func anyFix(t *rapid.T, timeMS int64, near *gpsfilter.Fix) gpsfilter.Fix {
	finite := rapid.Float32().Filter(func(v float32) bool { return !math.IsInf(float64(v), 0) && v == v })
	fix := gpsfilter.Fix{
		TimeMS:     timeMS,
		LatDeg:     rapid.Float64Range(-90, 90).Draw(t, "lat"),
		LonDeg:     rapid.Float64Range(-180, 180).Draw(t, "lon"),
		AccuracyM:  finite.Draw(t, "accuracy"),
		SpeedMPS:   finite.Draw(t, "speed"),
		HeadingDeg: finite.Draw(t, "heading"),
		Has:        gpsfilter.Fields(rapid.IntRange(0, 7).Draw(t, "has")),
	}
	if near != nil && rapid.Bool().Draw(t, "near") {
		fix.LatDeg = min(90, max(-90, near.LatDeg+rapid.Float64Range(-1e-3, 1e-3).Draw(t, "dlat")))
		fix.LonDeg = min(180, max(-180, near.LonDeg+rapid.Float64Range(-1e-3, 1e-3).Draw(t, "dlon")))
		fix.SpeedMPS = rapid.Float32Range(0, 40).Draw(t, "usualSpeed")
		fix.HeadingDeg = rapid.Float32Range(0, 360).Draw(t, "usualHeading")
	}
	return fix
}

func requireSound(t require.TestingT, e gpsfilter.Estimate) {
	for _, v := range []float64{e.DisplayLatDeg, e.DisplayLonDeg, e.OdometerM, e.LatDeg, e.LonDeg, e.SpeedMPS, e.HeadingDeg, e.VarEastM2, e.CovEastNorthM2, e.VarNorthM2, e.NormalisedDistance} {
		require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%+v", e)
	}
	require.True(t, e.LatDeg >= -90 && e.LatDeg <= 90 && e.LonDeg >= -180 && e.LonDeg <= 180, "%+v", e)
	require.True(t, e.DisplayLatDeg >= -90 && e.DisplayLatDeg <= 90 && e.DisplayLonDeg >= -180 && e.DisplayLonDeg <= 180 && e.OdometerM >= 0, "%+v", e)
	require.True(t, e.SpeedMPS >= 0 && e.HeadingDeg >= 0 && e.HeadingDeg < 360, "%+v", e)
	require.Greater(t, e.VarEastM2, 0.0)
	require.Greater(t, e.VarNorthM2, 0.0)
	require.Greater(t, e.VarEastM2*e.VarNorthM2, e.CovEastNorthM2*e.CovEastNorthM2, "the ellipse is positive definite: %+v", e)
}

func TestAnyFiniteInputGivesASoundEstimate(t *testing.T) {
	f := newFilter(t)
	rapid.Check(t, func(t *rapid.T) {
		var s gpsfilter.State
		var last *gpsfilter.Fix
		now := rapid.Int64Range(1, 1<<41).Draw(t, "start")
		n := rapid.IntRange(1, 60).Draw(t, "fixes")
		for range n {
			switch rapid.IntRange(0, 9).Draw(t, "gap") {
			case 0:
				now += rapid.Int64Range(-100_000, 100_000).Draw(t, "any gap")
			case 1:
				now += rapid.Int64Range(0, 1<<40).Draw(t, "long gap")
			default:
				now += rapid.Int64Range(1, 5000).Draw(t, "usual gap")
			}
			fix := anyFix(t, max(1, now), last)
			before := s.TimeMS()
			e := f.Step(&s, fix)
			requireSound(t, e)
			require.GreaterOrEqual(t, s.TimeMS(), before, "time never runs back")
			require.Equal(t, s.TimeMS(), e.TimeMS)
			require.Equal(t, fix.TimeMS <= before, e.Verdict == gpsfilter.VerdictOutOfOrder)
			if p, ok := f.Predict(&s, s.TimeMS()+rapid.Int64Range(0, 300_000).Draw(t, "ahead")); ok {
				requireSound(t, p)
			}
			last = &fix
		}
		var back gpsfilter.State
		require.NoError(t, back.UnmarshalBinary(s.AppendBinary(nil)))
		require.Equal(t, s, back)
	})
}

func TestFixNotAfterTheOneBeforeChangesNothing(t *testing.T) {
	f := newFilter(t)
	fixes := drive(50)
	var s gpsfilter.State
	for _, fix := range fixes {
		f.Step(&s, fix)
	}
	before := s
	want, _ := f.Predict(&s, s.TimeMS())
	for _, back := range []int64{0, 1, 1000, 1 << 40} {
		fix := fixes[20]
		fix.TimeMS = s.TimeMS() - back
		got := f.Step(&s, fix)
		require.Equal(t, gpsfilter.VerdictOutOfOrder, got.Verdict)
		got.Verdict = gpsfilter.VerdictNone
		require.Equal(t, want, got)
		require.Equal(t, before, s)
	}
}

func TestAssignmentIsAnIndependentSnapshot(t *testing.T) {
	f := newFilter(t)
	fixes := drive(200)
	var s gpsfilter.State
	for _, fix := range fixes[:100] {
		f.Step(&s, fix)
	}
	snapshot := s
	var first, second []gpsfilter.Estimate
	for _, fix := range fixes[100:] {
		first = append(first, f.Step(&s, fix))
	}
	for _, fix := range fixes[100:] {
		second = append(second, f.Step(&snapshot, fix))
	}
	require.Equal(t, first, second)
	require.Equal(t, s, snapshot)
}

func TestEncodedStateGoesOnAsIfUndisturbed(t *testing.T) {
	f := newFilter(t)
	var s, restored gpsfilter.State
	for i, fix := range drive(300) {
		want := f.Step(&s, fix)
		require.Equal(t, want, f.Step(&restored, fix))
		b := restored.AppendBinary(nil)
		require.LessOrEqual(t, len(b), 512)
		restored = gpsfilter.State{}
		require.NoError(t, restored.UnmarshalBinary(b), "fix %d", i)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	var s gpsfilter.State
	f := newFilter(t)
	for _, fix := range drive(10) {
		f.Step(&s, fix)
	}
	good := s.AppendBinary(nil)
	before := s
	require.ErrorContains(t, s.UnmarshalBinary(nil), "version")
	require.ErrorContains(t, s.UnmarshalBinary(good[:len(good)-1]), "bytes, want")
	other := append([]byte(nil), good...)
	other[0]++
	require.ErrorContains(t, s.UnmarshalBinary(other), "version")
	nan := append([]byte(nil), good...)
	for i := 9; i < 17; i++ {
		nan[i] = 0xff
	}
	require.ErrorContains(t, s.UnmarshalBinary(nan), "not finite")
	require.ErrorContains(t, s.UnmarshalBinary(append(append([]byte(nil), good[:9]...), make([]byte, len(good)-9)...)), "positive")
	require.Equal(t, before, s, "a refused encoding leaves the state as it was")
}

func TestPredictionIsBoundedAndGrowsLessCertain(t *testing.T) {
	f := newFilter(t)
	var s gpsfilter.State
	_, ok := f.Predict(&s, 1000)
	require.False(t, ok, "nothing is known")
	for _, fix := range drive(60) {
		f.Step(&s, fix)
	}
	limit := gpsfilter.DefaultConfig().PredictLimit.Milliseconds()
	last := 0.0
	for ahead := int64(0); ahead <= limit; ahead += limit / 50 {
		e, ok := f.Predict(&s, s.TimeMS()+ahead)
		require.True(t, ok)
		require.Greater(t, e.VarEastM2+e.VarNorthM2, last)
		last = e.VarEastM2 + e.VarNorthM2
	}
	_, ok = f.Predict(&s, s.TimeMS()+limit+1)
	require.False(t, ok, "beyond the bound it does not know")
}

// straight is a drive north at 15 m/s with white noise of sd metres per axis.
func straight(n int, sd float64, has gpsfilter.Fields, seed uint64) []gpsfilter.Fix {
	rng := rand.New(rand.NewPCG(seed, 1))
	fixes := make([]gpsfilter.Fix, n)
	for i := range fixes {
		fixes[i] = gpsfilter.Fix{
			TimeMS: int64(i+1) * 1000,
			LatDeg: 48 + (15*float64(i)+sd*rng.NormFloat64())/111195, LonDeg: 11 + sd*rng.NormFloat64()/74400,
			AccuracyM: 6, SpeedMPS: 15, Has: has,
		}
	}
	return fixes
}

func metresOff(e gpsfilter.Estimate, i int) float64 {
	return math.Hypot((e.LatDeg-48)*111195-15*float64(i), (e.LonDeg-11)*74400)
}

func TestRecoversFromABadFirstFix(t *testing.T) {
	f := newFilter(t)
	for _, has := range []gpsfilter.Fields{0, gpsfilter.FieldAccuracy, gpsfilter.FieldSpeed | gpsfilter.FieldHeading} {
		fixes := straight(10, 1, has, 1)
		fixes[0].LatDeg += 0.02
		var s gpsfilter.State
		for i, fix := range fixes {
			if e := f.Step(&s, fix); i >= 2 {
				require.Less(t, metresOff(e, i), 15.0, "fix %d", i)
			}
		}
	}
}

func TestRejectsJumps(t *testing.T) {
	f := newFilter(t)
	for _, has := range []gpsfilter.Fields{0, gpsfilter.FieldAccuracy, gpsfilter.FieldSpeed | gpsfilter.FieldHeading} {
		for _, jumpM := range []float64{150, 1000, 5000} {
			fixes := straight(60, 1, has, 2)
			for i := 20; i < 60; i += 10 {
				fixes[i].LonDeg += jumpM / 74400
			}
			var s gpsfilter.State
			for i, fix := range fixes {
				e := f.Step(&s, fix)
				if i >= 10 {
					require.Less(t, metresOff(e, i), 30.0, "fix %d has %d jump %v", i, has, jumpM)
				}
				if i >= 20 && i%10 == 0 {
					require.Equal(t, gpsfilter.VerdictOutlier, e.Verdict)
					require.Greater(t, e.NormalisedDistance, 5.0)
				}
			}
		}
	}
}

func TestFollowsWhenTheFixesHaveMovedForGood(t *testing.T) {
	f := newFilter(t)
	fixes := straight(60, 1, 0, 3)
	for i := 30; i < 60; i++ {
		fixes[i].LonDeg += 500.0 / 74400
	}
	var s gpsfilter.State
	for i, fix := range fixes {
		if e := f.Step(&s, fix); i >= 40 {
			require.InDelta(t, 500, metresOff(e, i), 15, "fix %d", i)
		}
	}
}

func TestHoldsStillWhenTheVehicleStands(t *testing.T) {
	f := newFilter(t)
	for _, has := range []gpsfilter.Fields{0, gpsfilter.FieldSpeed} {
		rng := rand.New(rand.NewPCG(4, 1))
		var s gpsfilter.State
		path := 0.0
		var last gpsfilter.Estimate
		for i := range 180 {
			e := f.Step(&s, gpsfilter.Fix{
				TimeMS: int64(i+1) * 1000, Has: has,
				LatDeg: 48 + 0.5*rng.NormFloat64()/111195, LonDeg: 11 + 0.5*rng.NormFloat64()/74400,
			})
			if i > 60 {
				require.Equal(t, gpsfilter.VerdictStandstill, e.Verdict)
				path += math.Hypot((e.DisplayLatDeg-last.DisplayLatDeg)*111195, (e.DisplayLonDeg-last.DisplayLonDeg)*74400)
			}
			last = e
		}
		require.Less(t, path/2, 5.0, "metres per minute")
		require.False(t, last.HasHeading, "a standing vehicle has no heading")
	}
}

func TestFrozenPositionIsStaleWhileTheVehicleDrives(t *testing.T) {
	f := newFilter(t)
	fixes := straight(40, 0.5, gpsfilter.FieldSpeed|gpsfilter.FieldHeading, 5)
	var s gpsfilter.State
	for i, fix := range fixes {
		if i >= 30 {
			fix.LatDeg, fix.LonDeg = fixes[29].LatDeg, fixes[29].LonDeg
		}
		e := f.Step(&s, fix)
		if i >= 30 {
			require.Equal(t, gpsfilter.VerdictStale, e.Verdict)
			require.Less(t, metresOff(e, i), 10.0, "it goes on by speed and heading")
		}
	}
}

func TestDaysWithoutAFixStartANewTrack(t *testing.T) {
	f := newFilter(t)
	fixes := straight(30, 1, 0, 6)
	var s gpsfilter.State
	for _, fix := range fixes {
		f.Step(&s, fix)
	}
	e := f.Step(&s, gpsfilter.Fix{TimeMS: fixes[29].TimeMS + 3*86_400_000, LatDeg: -33.9, LonDeg: 151.2})
	require.Equal(t, gpsfilter.VerdictWarmingUp, e.Verdict)
	require.Equal(t, -33.9, e.LatDeg)
	require.Equal(t, 151.2, e.LonDeg)
}

func TestAcrossTheAntimeridianAndAtThePoles(t *testing.T) {
	f := newFilter(t)
	for _, lat := range []float64{0, 60, 89.9999, -90} {
		var s gpsfilter.State
		for i := range 60 {
			lon := 179.995 + 0.0002*float64(i)
			if lon > 180 {
				lon -= 360
			}
			e := f.Step(&s, gpsfilter.Fix{TimeMS: int64(i+1) * 1000, LatDeg: lat, LonDeg: lon})
			requireSound(t, e)
			if lat <= 60 && lat >= 0 && i > 5 {
				d := math.Mod(e.LonDeg-lon+540, 360) - 180
				require.Less(t, math.Abs(d)*111195, 40.0)
			}
		}
	}
}

// A vehicle that is shipped across the world is found there, and what it was
// shipped by is no distance driven.
func TestTeleportIsFollowedAndNotCounted(t *testing.T) {
	f := newFilter(t)
	var s gpsfilter.State
	for i, fix := range straight(120, 0.5, gpsfilter.FieldAccuracy, 10) {
		if i >= 60 {
			fix.LatDeg, fix.LonDeg = -fix.LatDeg, fix.LonDeg+170
		}
		e := f.Step(&s, fix)
		requireSound(t, e)
		if i >= 63 {
			require.Less(t, offM(e, fix), 25.0, "fix %d", i)
			require.Less(t, greatCircleM(e.DisplayLatDeg, e.DisplayLonDeg, fix.LatDeg, fix.LonDeg), 40.0, "fix %d", i)
		}
	}
	require.InDelta(t, 15*118, s.OdometerM(), 150)
}

func TestDiagnosisTellsDevicesApart(t *testing.T) {
	f := newFilter(t)
	learned := func(spoil func(i int, fix *gpsfilter.Fix)) gpsfilter.Diagnosis {
		var s gpsfilter.State
		for i, fix := range straight(400, 4, 7, 11) {
			spoil(i, &fix)
			f.Step(&s, fix)
		}
		return s.Diagnosis()
	}
	honest := learned(func(int, *gpsfilter.Fix) {})
	require.True(t, honest.HasVelocity)
	require.Greater(t, honest.VelocityCredibility, 0.9)
	require.Less(t, honest.OutlierShare, 0.02)
	boasts := learned(func(_ int, fix *gpsfilter.Fix) { fix.AccuracyM = 1 })
	require.Greater(t, boasts.AccuracyScale, 3*honest.AccuracyScale, "it claims 1 m instead of 6")
	compass := learned(func(_ int, fix *gpsfilter.Fix) { fix.HeadingDeg = 90 })
	require.Less(t, compass.VelocityCredibility, 0.2)
	jumps := learned(func(i int, fix *gpsfilter.Fix) {
		if i%10 == 5 {
			fix.LonDeg += 0.02
		}
	})
	require.InDelta(t, 0.1, jumps.OutlierShare, 0.07)
	require.Zero(t, (&gpsfilter.State{}).Diagnosis())
}

func TestConfigNamesEveryFault(t *testing.T) {
	require.NoError(t, gpsfilter.DefaultConfig().Validate())
	_, err := gpsfilter.New(gpsfilter.Config{DefaultAccuracyM: math.NaN(), MinAccuracyM: -1})
	for _, field := range []string{"default_accuracy_m", "min_accuracy_m", "max_speed_mps", "predict_limit", "forget_after"} {
		require.ErrorContains(t, err, field)
	}
}

func TestStepDoesNotAllocate(t *testing.T) {
	f := newFilter(t)
	fixes := drive(1000)
	var s gpsfilter.State
	i := 0
	require.Zero(t, testing.AllocsPerRun(900, func() {
		f.Step(&s, fixes[i])
		i++
	}))
}

func FuzzUnmarshalState(f *testing.F) {
	filter := newFilter(f)
	var s gpsfilter.State
	f.Add(s.AppendBinary(nil))
	for _, fix := range drive(20) {
		filter.Step(&s, fix)
		f.Add(s.AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s gpsfilter.State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		require.Equal(t, b, s.AppendBinary(nil))
		filter.Step(&s, gpsfilter.Fix{TimeMS: s.TimeMS() + 1000, LatDeg: 1, LonDeg: 1})
	})
}

func FuzzStep(f *testing.F) {
	filter := newFilter(f)
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s gpsfilter.State
		now := int64(1)
		for ; len(b) >= 8; b = b[8:] {
			now += int64(b[0])*int64(b[0])*20 - 1000
			fix := gpsfilter.Fix{
				TimeMS: max(1, now),
				LatDeg: float64(int8(b[1]))/2000 + float64(int8(b[2]))/2, LonDeg: float64(int8(b[3]))/2000 + float64(int8(b[4])),
				AccuracyM: float32(b[5]) / 4, SpeedMPS: float32(b[6]) / 4, HeadingDeg: float32(b[7]) * 360 / 256,
				Has: gpsfilter.Fields(b[0] & 7),
			}
			requireSound(t, filter.Step(&s, fix))
		}
	})
}
