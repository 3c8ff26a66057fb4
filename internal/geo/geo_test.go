package geo_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// haversine is the textbook formula, good away from the antipode.
func haversine(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	sinLat, sinLon := math.Sin((lat2-lat1)*rad/2), math.Sin((lon2-lon1)*rad/2)
	h := sinLat*sinLat + math.Cos(lat1*rad)*math.Cos(lat2*rad)*sinLon*sinLon
	return 2 * geo.EarthRadiusM * math.Asin(math.Min(1, math.Sqrt(h)))
}

func latitude() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64Range(-90, 90), rapid.SampledFrom([]float64{-90, 0, 90, 89.999999, -89.999999}))
}

func longitude() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64Range(-180, 180), rapid.SampledFrom([]float64{-180, -90, 0, 90, 180, 179.9999999, -179.9999999}))
}

func TestDistanceAgreesWithHaversine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lat1, lon1 := latitude().Draw(t, "lat1"), longitude().Draw(t, "lon1")
		lat2, lon2 := latitude().Draw(t, "lat2"), longitude().Draw(t, "lon2")
		want := haversine(lat1, lon1, lat2, lon2)
		if want > math.Pi*geo.EarthRadiusM*0.99 {
			return // haversine is ill-conditioned near the antipode
		}
		got := geo.DistanceDeg(lat1, lon1, lat2, lon2)
		if math.Abs(got-want) > 1e-6+1e-12*want {
			t.Fatalf("distance %.9f, haversine %.9f", got, want)
		}
	})
}

func TestOnePlaceOneVector(t *testing.T) {
	for _, lon := range []float64{-180, -77.7, 0, 12.5, 90, 180} {
		require.Zero(t, geo.DistanceDeg(90, lon, 90, 0), "north pole at longitude %v", lon)
		require.Zero(t, geo.DistanceDeg(-90, lon, -90, 33), "south pole at longitude %v", lon)
	}
	for _, lat := range []float64{-90, -45.5, 0, 1e-9, 60, 90} {
		require.Zero(t, geo.DistanceDeg(lat, 180, lat, -180), "antimeridian at latitude %v", lat)
	}
}

func TestDistanceNearAndFar(t *testing.T) {
	quarter := math.Pi / 2 * geo.EarthRadiusM
	require.InDelta(t, quarter, geo.DistanceDeg(0, 0, 90, 0), 1e-6)
	require.InDelta(t, 2*quarter, geo.DistanceDeg(0, 0, 0, 180), 1e-6)
	// A millimetre stays a millimetre, here and at the antipode.
	const mm = 1e-3 / geo.EarthRadiusM * 180 / math.Pi
	require.InDelta(t, 1e-3, geo.DistanceDeg(0, 0, mm, 0), 1e-8)
	require.InDelta(t, 2*quarter-1e-3, geo.DistanceDeg(0, 0, mm, 180), 1e-8)
}

func TestChord2BoundNeverCutsOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := geo.Unit(latitude().Draw(t, "lat1"), longitude().Draw(t, "lon1"))
		b := geo.Unit(latitude().Draw(t, "lat2"), longitude().Draw(t, "lon2"))
		if rapid.Bool().Draw(t, "near") {
			lat, lon := a.Degrees()
			b = geo.Unit(geo.Destination(lat, lon, rapid.Float64Range(0, 360).Draw(t, "bearing"), rapid.Float64Range(0, 1e4).Draw(t, "m")))
		}
		bound := geo.Chord2Bound(geo.Distance(a, b))
		if c := geo.Chord2(a, b); c > bound {
			t.Fatalf("chord² %v above its bound %v", c, bound)
		}
	})
}

func TestChord2BoundIsTight(t *testing.T) {
	for _, d := range []float64{0, 1e-3, 1, 1e3, 1e6, 1.9e7} {
		dest := geo.Unit(geo.Destination(10, 20, 77, d*(1+1e-9)+1e-6))
		require.Greater(t, geo.Chord2(geo.Unit(10, 20), dest), geo.Chord2Bound(d), "at %v m", d)
	}
}

func TestBoxChord2IsALowerBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := geo.Unit(latitude().Draw(t, "lat"), longitude().Draw(t, "lon"))
		p := geo.Unit(latitude().Draw(t, "plat"), longitude().Draw(t, "plon"))
		// The cell of a dyadic grid that holds p.
		side := math.Ldexp(1, -rapid.IntRange(0, 22).Draw(t, "level"))
		down := func(v float64) float64 { return math.Floor(v/side) * side }
		lo := geo.Vec{X: down(p.X), Y: down(p.Y), Z: down(p.Z)}
		hi := geo.Vec{X: lo.X + side, Y: lo.Y + side, Z: lo.Z + side}
		if lb, c := geo.BoxChord2(q, lo, hi), geo.Chord2(q, p); lb > c {
			t.Fatalf("lower bound %v above the chord² %v of a point inside", lb, c)
		}
		if inside := geo.BoxChord2(p, lo, hi); inside != 0 {
			t.Fatalf("a point inside is %v away", inside)
		}
	})
}

func TestDestination(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lat, lon := latitude().Draw(t, "lat"), longitude().Draw(t, "lon")
		brg := rapid.Float64Range(0, 360).Draw(t, "bearing")
		m := rapid.Float64Range(0, 1.9e7).Draw(t, "m")
		lat2, lon2 := geo.Destination(lat, lon, brg, m)
		if lat2 < -90 || lat2 > 90 || lon2 < -180 || lon2 > 180 {
			t.Fatalf("destination (%v, %v) is not a place", lat2, lon2)
		}
		if got := geo.DistanceDeg(lat, lon, lat2, lon2); math.Abs(got-m) > 1e-6 {
			t.Fatalf("went %v m, asked for %v", got, m)
		}
	})
	lat, lon := geo.Destination(0, 0, 90, math.Pi/2*geo.EarthRadiusM)
	require.InDelta(t, 0, lat, 1e-9)
	require.InDelta(t, 90, lon, 1e-9)
	lat, _ = geo.Destination(48, 11, 0, 1000)
	require.InDelta(t, 48+1000/geo.EarthRadiusM*180/math.Pi, lat, 1e-9)
}

func TestEllipse95RadiusM(t *testing.T) {
	chi := math.Sqrt(-2 * math.Log(0.05))
	require.InDelta(t, 5*chi, geo.Ellipse95RadiusM(25, 0, 25), 1e-9)
	require.InDelta(t, 10*chi, geo.Ellipse95RadiusM(100, 0, 1), 1e-9)
	// A diagonal ellipse: variances 9 and 1 along axes turned by 45 degrees.
	require.InDelta(t, 3*chi, geo.Ellipse95RadiusM(5, 4, 5), 1e-9)
	require.Zero(t, geo.Ellipse95RadiusM(0, 0, 0))
}

// TestUnitIsAccurate judges one awkward value against 100-bit arithmetic's
// identity sin² + cos² = 1.
func TestUnitIsAccurate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := geo.Unit(latitude().Draw(t, "lat"), longitude().Draw(t, "lon"))
		sum := new(big.Float).SetPrec(100)
		for _, c := range []float64{v.X, v.Y, v.Z} {
			b := new(big.Float).SetPrec(100).SetFloat64(c)
			sum.Add(sum, b.Mul(b, b))
		}
		off, _ := sum.Sub(sum, big.NewFloat(1)).Float64()
		if math.Abs(off) > 1e-15 {
			t.Fatalf("length² is off by %v", off)
		}
	})
}
