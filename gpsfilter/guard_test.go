package gpsfilter_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/gpsfilter"
)

const (
	earthM   = 6371008.8
	radius95 = 2.4477
)

// greatCircleM is the distance of two places on the sphere.
func greatCircleM(latA, lonA, latB, lonB float64) float64 {
	const rad = math.Pi / 180
	s, t := math.Sin((latB-latA)*rad/2), math.Sin((lonB-lonA)*rad/2)
	return 2 * earthM * math.Asin(math.Sqrt(min(1, s*s+math.Cos(latA*rad)*math.Cos(latB*rad)*t*t)))
}

func offM(e gpsfilter.Estimate, f gpsfilter.Fix) float64 {
	return greatCircleM(e.LatDeg, e.LonDeg, f.LatDeg, f.LonDeg)
}

// plausible draws n positions in a row, all different, between which no vehicle
// would have to exceed 65 m/s, with any accuracy, speed and heading.
func plausible(t *rapid.T, startMS int64, n int) []gpsfilter.Fix {
	finite := rapid.Float32().Filter(func(v float32) bool { return !math.IsInf(float64(v), 0) && v == v })
	lat, lon := rapid.Float64Range(-80, 80).Draw(t, "lat"), rapid.Float64Range(-180, 180).Draw(t, "lon")
	fixes := make([]gpsfilter.Fix, n)
	for i := range fixes {
		dt := rapid.Int64Range(1, 120_000).Draw(t, "dt")
		startMS += dt
		if i > 0 {
			d := rapid.Float64Range(0.01, 1).Draw(t, "share") * 65 * float64(dt) / 1000
			a := rapid.Float64Range(0, 2*math.Pi).Draw(t, "direction")
			lat += d * math.Cos(a) / 111195
			lon += d * math.Sin(a) / (111195 * math.Cos(lat*math.Pi/180))
			lon = math.Mod(lon+540, 360) - 180
		}
		fixes[i] = gpsfilter.Fix{
			TimeMS: startMS, LatDeg: lat, LonDeg: lon, AccuracyM: finite.Draw(t, "accuracy"), SpeedMPS: finite.Draw(t, "speed"),
			HeadingDeg: finite.Draw(t, "heading"), Has: gpsfilter.Fields(rapid.IntRange(0, 7).Draw(t, "has")),
		}
		if rapid.Bool().Draw(t, "usual") {
			fixes[i].AccuracyM, fixes[i].SpeedMPS = rapid.Float32Range(0, 50).Draw(t, "usual accuracy"), rapid.Float32Range(0, 40).Draw(t, "usual speed")
		}
	}
	return fixes
}

// allowedM is how far the live position may be from the last of three plausible
// positions.
func allowedM(f gpsfilter.Fix) float64 {
	if f.Has&gpsfilter.FieldAccuracy != 0 && f.AccuracyM > 0 {
		return max(25, 2*float64(f.AccuracyM))
	}
	return 25
}

// Whatever was reported before, and whatever speed, heading and accuracy are.
func TestThreePlausiblePositionsInARowAreBelieved(t *testing.T) {
	f := newFilter(t)
	rapid.Check(t, func(t *rapid.T) {
		var s gpsfilter.State
		now := rapid.Int64Range(1, 1<<41).Draw(t, "start")
		var last *gpsfilter.Fix
		for range rapid.IntRange(0, 40).Draw(t, "before") {
			now += rapid.Int64Range(1, 20_000).Draw(t, "gap")
			fix := anyFix(t, now, last)
			f.Step(&s, fix)
			last = &fix
		}
		for i, fix := range plausible(t, now, rapid.IntRange(3, 12).Draw(t, "fixes")) {
			if e := f.Step(&s, fix); i >= 2 {
				require.LessOrEqual(t, offM(e, fix), allowedM(fix), "fix %d: %+v gives %+v", i, fix, e)
			}
		}
	})
}

// Exact repetition does not count, and does not break the row either.
func TestRepetitionDoesNotBreakTheRow(t *testing.T) {
	f := newFilter(t)
	rapid.Check(t, func(t *rapid.T) {
		var s gpsfilter.State
		distinct := 0
		f.Step(&s, gpsfilter.Fix{TimeMS: 1, LatDeg: 10, LonDeg: 10})
		now, before := int64(1), int64(1000)
		for _, fix := range plausible(t, 1000, 8) {
			fix.Has = 0
			now, before = now+fix.TimeMS-before, fix.TimeMS
			fix.TimeMS = now
			distinct++
			e := f.Step(&s, fix)
			for range rapid.IntRange(0, 3).Draw(t, "repeats") {
				now += 15_000
				fix.TimeMS = now
				e = f.Step(&s, fix)
			}
			if distinct >= 3 && e.Verdict != gpsfilter.VerdictStale {
				require.LessOrEqual(t, offM(e, fix), 25.0)
			}
		}
	})
}

func TestStatedRadiusHoldsAnAcceptedFix(t *testing.T) {
	f := newFilter(t)
	rapid.Check(t, func(t *rapid.T) {
		var s gpsfilter.State
		now := int64(1)
		var last *gpsfilter.Fix
		for range rapid.IntRange(1, 60).Draw(t, "fixes") {
			now += rapid.Int64Range(1, 20_000).Draw(t, "gap")
			fix := anyFix(t, now, last)
			fix.LatDeg = max(-80, min(80, fix.LatDeg))
			e := f.Step(&s, fix)
			if e.Verdict == gpsfilter.VerdictAccepted || e.Verdict == gpsfilter.VerdictStandstill {
				require.LessOrEqual(t, offM(e, fix), radius95*math.Sqrt(min(e.VarEastM2, e.VarNorthM2))+1e-3, "%+v gives %+v", fix, e)
			}
			last = &fix
		}
	})
}

// FuzzGuard is TestThreePlausiblePositionsInARowAreBelieved over bytes: eight of
// them make a fix, the last three fixes are plausible together.
func FuzzGuard(f *testing.F) {
	filter := newFilter(f)
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s gpsfilter.State
		now := int64(1)
		var fix gpsfilter.Fix
		take := func() {
			now += 1 + int64(b[0])*int64(b[0])*20
			fix.TimeMS, fix.Has = now, gpsfilter.Fields(b[0]&7)
			fix.AccuracyM, fix.SpeedMPS, fix.HeadingDeg = float32(b[5])*float32(b[5]), float32(b[6])/4, float32(b[7])*360/256
		}
		for ; len(b) >= 8; b = b[8:] {
			take()
			fix.LatDeg = float64(int8(b[1]))/2000 + float64(int8(b[2]))/2
			fix.LonDeg = float64(int8(b[3]))/2000 + float64(int8(b[4]))
			requireSound(t, filter.Step(&s, fix))
		}
		for i := range 5 {
			now += 1000
			fix.TimeMS = now
			fix.LatDeg += 1e-4
			if e := filter.Step(&s, fix); i >= 2 {
				require.LessOrEqual(t, offM(e, fix), allowedM(fix))
			}
		}
	})
}

func TestHeadingIsNever360(t *testing.T) {
	f := newFilter(t)
	for _, heading := range []float32{359.9999, 359.99997, 359.99999, 0, 1e-7} {
		var s gpsfilter.State
		for i := range 60 {
			e := f.Step(&s, gpsfilter.Fix{
				TimeMS: int64(i+1) * 1000, LatDeg: 48 + 9*float64(i)/111195, LonDeg: 11 - 1e-12*float64(i),
				SpeedMPS: 9, HeadingDeg: heading, Has: gpsfilter.FieldSpeed | gpsfilter.FieldHeading,
			})
			if i > 5 {
				require.True(t, e.HasHeading)
				require.Less(t, float32(e.HeadingDeg), float32(360), "%v: a float32 of it may be printed", heading)
				require.Less(t, math.Min(e.HeadingDeg, 360-e.HeadingDeg), 1.0)
			}
		}
	}
}

func TestUnknownSpeedAndAccuracyAreAbsent(t *testing.T) {
	f := newFilter(t)
	var with, without gpsfilter.State
	for i, fix := range straight(60, 1, 0, 9) {
		bare := f.Step(&without, fix)
		fix.AccuracyM, fix.SpeedMPS, fix.HeadingDeg, fix.Has = -1, -1, -1, 7
		require.Equal(t, bare, f.Step(&with, fix), "fix %d: what iOS sends for unknown is as if it were not sent", i)
	}
}
