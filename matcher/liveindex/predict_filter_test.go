package liveindex_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

// TestPredictionIsTheFilters drives a device with stops and turns and compares
// what the index makes of the published estimate with what the filter predicts
// from its state.
func TestPredictionIsTheFilters(t *testing.T) {
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	require.NoError(t, err)
	for _, has := range []gpsfilter.Fields{gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed | gpsfilter.FieldHeading, gpsfilter.FieldAccuracy} {
		var s gpsfilter.State
		x := liveindex.New(nil)
		growth := map[int64][]float64{} // logarithms of the index's over the filter's
		for _, fix := range crookedDrive(500, has) {
			e := f.Step(&s, fix)
			for _, aheadMS := range []int64{2000, 5000, 10_000, 20_000} {
				p, ok := f.Predict(&s, e.TimeMS+aheadMS)
				require.True(t, ok)
				hit := predictedBy(t, x, e, aheadMS)
				require.Equal(t, e.HasSpeed && e.HasHeading && e.SpeedMPS > 0, hit.Predicted)
				if !hit.Predicted {
					continue
				}
				require.Less(t, geo.DistanceDeg(p.LatDeg, p.LonDeg, hit.Prediction.LatDeg, hit.Prediction.LonDeg), 1.0, "metres apart after %d ms", aheadMS)
				grown := (p.VarEastM2 + p.VarNorthM2 - e.VarEastM2 - e.VarNorthM2) / 2
				growth[aheadMS] = append(growth[aheadMS], math.Log(hit.Prediction.VarGrowthM2/grown))
			}
		}
		for aheadMS, logs := range growth {
			require.Greater(t, len(logs), 250)
			sum := 0.0
			for _, l := range logs {
				sum += l
			}
			require.InDelta(t, 0, sum/float64(len(logs)), math.Log(4), "variance after %d ms, typically", aheadMS)
		}
		require.Len(t, growth, 4)
	}
}

// crookedDrive has a fix a second: straight, then bends, then a stop, and again.
func crookedDrive(n int, has gpsfilter.Fields) []gpsfilter.Fix {
	rng := rand.New(rand.NewPCG(1, 2))
	lat, lon, heading := 48.0, 11.0, 0.0
	fixes := make([]gpsfilter.Fix, n)
	for i := range fixes {
		speed := 15.0
		if i/100%4 == 3 {
			speed = 0
		}
		if i/20%3 == 1 {
			heading = math.Mod(heading+5, 360)
		}
		lat, lon = geo.Destination(lat, lon, heading, speed)
		fixes[i] = gpsfilter.Fix{
			TimeMS: int64(i+1) * 1000, LatDeg: lat + rng.NormFloat64()*5/111195, LonDeg: lon + rng.NormFloat64()*5/74400,
			AccuracyM: 6, SpeedMPS: float32(speed), HeadingDeg: float32(heading), Has: has,
		}
	}
	return fixes
}

// predictedBy is what an index returns for a vehicle that was published so.
func predictedBy(t *testing.T, x *liveindex.Index, e gpsfilter.Estimate, aheadMS int64) liveindex.Hit {
	v := wire.View{VehicleID: "v", DeviceTimeMS: e.TimeMS}
	v.LatDeg, v.LonDeg = e.LatDeg, e.LonDeg
	v.SpeedMPS, v.HeadingDeg, v.HasSpeed, v.HasHeading = float32(e.SpeedMPS), float32(e.HeadingDeg), e.HasSpeed, e.HasHeading
	require.NoError(t, x.Upsert(&v))
	hits := x.Nearest(liveindex.Query{LatDeg: e.LatDeg, LonDeg: e.LonDeg, MaxResults: 1, Ahead: &liveindex.Ahead{NowMS: e.TimeMS + aheadMS, LimitMS: 20_000}}, nil)
	require.Len(t, hits, 1)
	return hits[0]
}
