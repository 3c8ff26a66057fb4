package gpsfilter_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
)

// at is a fix so many metres north and east of a place, a second apart.
func at(second int, north, east float64) gpsfilter.Fix {
	return gpsfilter.Fix{TimeMS: int64(second+1) * 1000, LatDeg: 48 + north/111195, LonDeg: 11 + east/74400}
}

func off(e gpsfilter.Estimate, north, east float64) float64 {
	return math.Hypot((e.LatDeg-48)*111195-north, (e.LonDeg-11)*74400-east)
}

func TestFollowsAVehicleThatDrivesOffSlowlyAndReportsNothing(t *testing.T) {
	f := newFilter(t)
	rng := rand.New(rand.NewPCG(8, 1))
	for _, speed := range []float64{2, 3.5, 6, 12} {
		var s gpsfilter.State
		for i := range 75 {
			north := speed * max(0, float64(i-60))
			e := f.Step(&s, at(i, north+0.2*rng.NormFloat64(), 0.2*rng.NormFloat64()))
			if i >= 65 {
				require.Less(t, off(e, north, 0), 12.0, "%v m/s, second %d", speed, i-60)
			}
		}
	}
}

func TestLearnsByHowMuchSpeedAndCourseAreLate(t *testing.T) {
	f := newFilter(t)
	// A town: right-angled turns, with stops before some of them.
	const turnEvery, turnTakes = 25.0, 4.0
	velocity := func(s float64) (speed, course float64) {
		turns := math.Floor(s / turnEvery)
		in := s - turns*turnEvery
		course = 90 * (turns + min(1, in/turnTakes))
		speed = 10 * min(1, math.Abs(in-15)/5)
		return speed, course
	}
	mean := func(lateS float64) float64 {
		rng := rand.New(rand.NewPCG(9, 1))
		var s gpsfilter.State
		var north, east, sum float64
		for i := range 900 {
			for k := range 100 {
				v, c := velocity(float64(i) + float64(k)/100)
				north += v * math.Cos(c*math.Pi/180) / 100
				east += v * math.Sin(c*math.Pi/180) / 100
			}
			v, c := velocity(float64(i+1) - lateS)
			fix := at(i, north+3*rng.NormFloat64(), east+3*rng.NormFloat64())
			fix.SpeedMPS, fix.HeadingDeg = float32(v), float32(math.Mod(c+360, 360))
			fix.Has = gpsfilter.FieldSpeed | gpsfilter.FieldHeading
			if e := f.Step(&s, fix); i >= 300 {
				sum += off(e, north, east)
			}
		}
		return sum / 600
	}
	inTime, late := mean(0), mean(0.7)
	require.Less(t, inTime, 2.0)
	require.Less(t, late, 1.4*inTime, "of a lag of 0.7 s little is left")
}

func TestKeepsToTheFixesOfAQuietDevice(t *testing.T) {
	f := newFilter(t)
	for _, has := range []gpsfilter.Fields{0, gpsfilter.FieldSpeed, gpsfilter.FieldSpeed | gpsfilter.FieldHeading} {
		var s gpsfilter.State
		for i := range 130 {
			// Its chipset finds out that it was on the other carriageway.
			north, east := 15*float64(i), 0.0
			if i >= 100 {
				east = 30
			}
			fix := at(i, north, east)
			fix.SpeedMPS, fix.Has = 15, has
			e := f.Step(&s, fix)
			require.NotEqual(t, gpsfilter.VerdictOutlier, e.Verdict, "has %d fix %d", has, i)
			if i >= 10 {
				most := 15.0
				if i < 102 {
					most = 25 // a step of 30 m: never further than the safety net lets it
				}
				require.LessOrEqual(t, off(e, north, east), most, "has %d fix %d", has, i)
			}
		}
	}
}

func TestOneJumpAfterAGapDoesNotWin(t *testing.T) {
	f := newFilter(t)
	for _, has := range []gpsfilter.Fields{0, gpsfilter.FieldSpeed | gpsfilter.FieldHeading} {
		var s gpsfilter.State
		step := func(second int, east float64) gpsfilter.Estimate {
			fix := at(second, 20*float64(second), east)
			fix.SpeedMPS, fix.Has = 20, has
			return f.Step(&s, fix)
		}
		for i := range 40 {
			step(i, 0)
		}
		step(70, 60) // a gap, and further to the side than expected
		e := step(71, 900)
		require.Equal(t, gpsfilter.VerdictOutlier, e.Verdict)
		require.Less(t, off(e, 20*71, 60), 60.0)
	}
}
