package geo_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/geo"
)

func unitVector(t *rapid.T, label string) geo.Vec {
	return geo.Unit(latitude().Draw(t, label+" lat"), longitude().Draw(t, label+" lon"))
}

func TestPlaneIsAtRightAngles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := unitVector(t, "centre")
		east, north := geo.Plane(c)
		for _, pair := range [][2]geo.Vec{{c, east}, {c, north}, {east, north}} {
			require.InDelta(t, 0, pair[0].Dot(pair[1]), 1e-12)
		}
		for _, v := range []geo.Vec{east, north} {
			_, length := v.Normal()
			require.InDelta(t, 1, length, 1e-12)
		}
	})
}

func TestBoxesAndCaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n := unitVector(t, "point"), unitVector(t, "normal")
		size := rapid.Float64Range(0, 1).Draw(t, "size")
		lo, hi := geo.Vec{X: p.X - size, Y: p.Y - size, Z: p.Z - size}, geo.Vec{X: p.X + size, Y: p.Y + size, Z: p.Z + size}
		require.True(t, geo.MeetsSphere(lo, hi))
		require.GreaterOrEqual(t, geo.MaxDot(n, lo, hi), n.Dot(p))
		out := p.Add(p).Add(p) // far outside
		require.False(t, geo.MeetsSphere(out, out))

		var caps []geo.Cap
		for range rapid.IntRange(1, 5).Draw(t, "caps") {
			radius := rapid.Float64Range(0, 1).Draw(t, "chord")
			caps = append(caps, geo.Cap{Centre: unitVector(t, "cap"), Chord2: radius * radius})
		}
		all := geo.Around(caps)
		for _, c := range caps {
			require.LessOrEqual(t, math.Sqrt(geo.Chord2(all.Centre, c.Centre))+math.Sqrt(c.Chord2), math.Sqrt(all.Chord2)*(1+1e-12))
			if geo.Chord2(c.Centre, p) <= c.Chord2 {
				require.True(t, c.MayHold(lo, hi))
				require.LessOrEqual(t, geo.Distance(c.Centre, p), c.RadiusM()*(1+1e-9)+1e-6)
			}
		}
	})
}

// The smallest cap of points drawn in a cap is at most as large as that one, and
// holds them all, wherever they are dense.
func TestSmallestCapHoldsAllAndIsSmallest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lat, lon := latitude().Draw(t, "lat"), longitude().Draw(t, "lon")
		radiusM := rapid.SampledFrom([]float64{1e3, 1e4, 1e6, 5e6, 9.9e6}).Draw(t, "radius")
		centre := geo.Unit(lat, lon)
		var points []geo.Vec
		for range rapid.IntRange(1, 40).Draw(t, "points") {
			share := rapid.SampledFrom([]float64{0, 0.01, 0.5, 1}).Draw(t, "share")
			points = append(points, geo.Unit(geo.Destination(lat, lon, rapid.Float64Range(0, 359).Draw(t, "bearing"), share*radiusM)))
		}
		widest := 0.0
		for _, p := range points {
			widest = max(widest, geo.Chord2(centre, p))
		}
		got := geo.SmallestCap(points)
		require.LessOrEqual(t, got.Chord2, widest*(1+1e-5)+1e-20)
		for _, p := range points {
			require.LessOrEqual(t, geo.Chord2(got.Centre, p), got.Chord2*(1+1e-5)+1e-20)
		}
	})
}
