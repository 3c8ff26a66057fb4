package liveindex_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

// TestPredictedRankAgainstBruteForce drives every vehicle on by itself, by
// geo.Destination, and compares.
// onPole reports whether a place is so near to a pole (6 mm) that a heading there
// means nothing: such a vehicle is not driven on.
func onPole(latDeg float64) bool { return math.Cos(latDeg*math.Pi/180) < 1e-9 }

func TestPredictedRankAgainstBruteForce(t *testing.T) {
	place := places(hubs(t))
	rapid.Check(t, func(t *rapid.T) {
		view := views(place, 200)
		x, judge := liveindex.New(nil), fleet{}
		for _, v := range rapid.SliceOfN(view, 1, 200).Draw(t, "views") {
			v.SpeedMPS, v.HasSpeed = rapid.Float32Range(0, 60).Draw(t, "speed"), rapid.Bool().Draw(t, "has speed")
			v.HeadingDeg, v.HasHeading = rapid.Float32Range(0, 359).Draw(t, "heading"), rapid.Bool().Draw(t, "has heading")
			require.NoError(t, x.Upsert(&v))
			judge[v.VehicleID] = v
		}
		q := queries(place).Draw(t, "query")
		q.Filter = liveindex.Filter{}
		q.Ahead = &liveindex.Ahead{NowMS: rapid.Int64Range(0, 30_000).Draw(t, "now"), LimitMS: 20_000}
		later := func(string) int64 { return 0 }
		if rapid.Bool().Draw(t, "skewed") {
			q.Ahead.Skew, later = someLater, someLater.Of
		}
		var want []float64
		for _, v := range judge {
			if v.DeviceTimeMS == 0 {
				continue
			}
			lat, lon := v.LatDeg, v.LonDeg
			if dt := q.Ahead.NowMS + later(v.VehicleID) - fixTime(v); dt > 0 && dt <= 20_000 && v.HasSpeed && v.HasHeading && !onPole(lat) {
				lat, lon = geo.Destination(lat, lon, float64(v.HeadingDeg), float64(v.SpeedMPS)*float64(dt)/1000)
			}
			if d := geo.DistanceDeg(q.LatDeg, q.LonDeg, lat, lon); q.RadiusM == 0 || d <= q.RadiusM {
				want = append(want, d)
			}
		}
		slices.Sort(want)
		hits := x.Nearest(q, nil)
		for i, h := range hits {
			if i < min(len(want), q.MaxResults) {
				require.InDelta(t, want[i], h.DistanceM, 1e-3, "place %d", i)
			}
			if h.Predicted {
				require.InDelta(t, h.DistanceM, geo.DistanceDeg(q.LatDeg, q.LonDeg, h.Prediction.LatDeg, h.Prediction.LonDeg), 1e-3)
				require.Positive(t, h.Prediction.VarGrowthM2)
			}
		}
		// A vehicle within rounding of the radius may be on either side.
		edge := func(d float64) bool { return q.RadiusM > 0 && d > q.RadiusM-1e-3 }
		for len(want) > len(hits) && edge(want[len(want)-1]) {
			want = want[:len(want)-1]
		}
		for len(hits) > len(want) && edge(hits[len(hits)-1].DistanceM) {
			hits = hits[:len(hits)-1]
		}
		require.Len(t, hits, min(len(want), q.MaxResults))
	})
}

// One fast reading does not widen every later search: the bound on how far a
// vehicle may be from where it was seen falls when its vehicle has reported anew.
func TestTopSpeedFalls(t *testing.T) {
	x, now := liveindex.New(nil), int64(0)
	report := func(id string, speedMPS float32) {
		now++
		v := wire.View{VehicleID: id, DeviceTimeMS: now, Estimate: wire.Estimate{SpeedMPS: speedMPS, HasSpeed: true, HasHeading: true}}
		require.NoError(t, x.Upsert(&v))
	}
	ahead := liveindex.Ahead{NowMS: 1000, LimitMS: 1000}
	for i := range 100 {
		report(fmt.Sprint("v", i), float32(i%20))
	}
	slow := x.ReachM(ahead)
	require.GreaterOrEqual(t, slow, 19.0)
	require.Less(t, slow, 19*1.25, "classes are a quarter of a power of two wide")
	report("v7", 340)
	require.GreaterOrEqual(t, x.ReachM(ahead), 340.0)
	for i := range 200 { // states are reclaimed some dozens at a time
		report(fmt.Sprint("v", i%100), float32(i%20))
	}
	require.Equal(t, slow, x.ReachM(ahead))
	for i := range 100 {
		x.Remove(fmt.Sprint("v", i))
	}
	for range 100 {
		report("v", 0)
		x.Remove("v")
	}
	require.Zero(t, x.ReachM(ahead))
}
