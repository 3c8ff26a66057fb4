package gpsfilter_test

import (
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/filtereval"
)

var leaveOut = flag.Int("leaveout", 0, "how many sets of constants to try for each drive that is left out; 0 skips it")

// searched are the constants that the search for one drive's constants may
// change.
var searched = []string{
	"QAlong", "QCross", "QAlongVelocity", "QCrossVelocity", "QAlongWheel", "QCrossWheel",
	"BiasM", "BiasVelocityM", "BiasPerNoise", "BiasPerNoiseVelocity", "BiasTauS", "NoiseRate", "DOF", "DOFVelocity",
	"SpeedSD", "SpeedPerAlong", "CoursePerAlong", "CoursePerAcross", "HeadingSD", "LowSpeedSD", "WheelSD",
	"SpeedLagS", "CourseLagS", "SlowLagS",
	"StandSpeed", "StandSpeedPerNoise", "StandHoldS", "StandExitM", "StandExitPerNoise", "JumpM", "JumpPerNoise",
	"LeashM", "LeashSpeed", "LeashNoise", "LeashPerNoise", "LeashSpeedPerNoise",
}

// TestLeaveOneDriveOut tells what constants are worth on a drive that they were
// not chosen by. The search starts at the nearest of 1 and 3 times a power of
// ten, so that nothing of the default's fitting is in it; it is a measurement
// and asserts little.
func TestLeaveOneDriveOut(t *testing.T) {
	if *leaveOut == 0 {
		t.Skip("a measurement that takes minutes: -leaveout 1000")
	}
	data := os.Getenv("STARLING_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "shared", "data")
	}
	streams, err := filtereval.LoadDir(filepath.Join(data, "truth"))
	require.NoError(t, err)
	judge := filtereval.NewJudge(streams)
	drives := map[string]bool{}
	var all []filtereval.Outcome
	for _, s := range streams {
		if drives[s.Drive] {
			continue
		}
		drives[s.Drive] = true
		f := searchWithout(t, judge, s.Drive)
		for _, o := range judge.Clean(filtereval.Starling(f)) {
			if o.Drive == s.Drive {
				t.Logf("%-50s p50 %.3f p95 %.3f length %.3f", o.Name, o.P50, o.P95, o.Length)
				all = append(all, o)
			}
		}
	}
	require.Len(t, all, len(streams), "every stream is left out once")
	p50, p95, length, drift := meansWithout(all, "")
	t.Logf("all: p50 %.3f p95 %.3f length %.3f drift %.1f m/min", p50, p95, length, drift)
}

// searchWithout searches at random for constants that do well on all drives but
// one.
func searchWithout(t *testing.T, judge *filtereval.Judge, drive string) *gpsfilter.Filter {
	f := newFilter(t)
	for _, name := range searched {
		*f.Constant(name) = coarse(*f.Constant(name))
	}
	cost := func() float64 {
		p50, p95, length, drift := meansWithout(judge.Clean(filtereval.Starling(f)), drive)
		return math.Log(p50*p95) + 10*max(0, math.Log(length/1.03)) + max(0, math.Log(drift/12))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	best := cost()
	for range *leaveOut {
		before := map[string]float64{}
		for range 1 + rng.IntN(3) {
			name := searched[rng.IntN(len(searched))]
			c := f.Constant(name)
			if _, twice := before[name]; !twice {
				before[name] = *c
			}
			*c *= math.Exp(0.5 * rng.NormFloat64())
		}
		if c := cost(); c < best {
			best = c
			continue
		}
		for name, v := range before {
			*f.Constant(name) = v
		}
	}
	return f
}

// coarse returns the nearest of 1 and 3 times a power of ten.
func coarse(v float64) float64 {
	half := math.Round(2 * math.Log10(v))
	power := math.Pow(10, math.Floor(half/2))
	if math.Mod(half, 2) != 0 {
		return 3 * power
	}
	return power
}

func meansWithout(outcomes []filtereval.Outcome, drive string) (p50, p95, length, drift float64) {
	n, driftM, standingS := 0.0, 0.0, 0.0
	for _, o := range outcomes {
		if o.Drive == drive {
			continue
		}
		n++
		p50 += math.Log(o.P50)
		p95 += math.Log(o.P95)
		length += math.Log(o.Length)
		driftM += o.DriftM
		standingS += o.StandingS
	}
	return math.Exp(p50 / n), math.Exp(p95 / n), math.Exp(length / n), driftM / standingS * 60
}
