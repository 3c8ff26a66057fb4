// Package geo is geometry on the sphere that Starling measures on: the sphere
// of radius EarthRadiusM, places as WGS84 degrees or as unit vectors, lengths
// in metres. It is pure and allocates nothing.
//
// Distances come from unit vectors and not from the haversine formula, because
// vectors know neither poles nor the antimeridian: a place has one vector
// however its longitude is written, and a box around vectors bounds distances
// everywhere alike.
package geo

import "math"

// EarthRadiusM is the mean radius R1 of the WGS84 ellipsoid in metres.
const EarthRadiusM = 6371008.8

// Vec is a vector in the earth-centred frame: X towards (0, 0), Y towards
// 90 degrees east on the equator, Z towards the north pole.
type Vec struct{ X, Y, Z float64 }

// Unit returns the unit vector of a place. Every spelling of a pole, and both
// spellings of the antimeridian, give the same vector.
func Unit(latDeg, lonDeg float64) Vec {
	sinLat, cosLat := sinCosDeg(latDeg)
	sinLon, cosLon := sinCosDeg(lonDeg)
	return Vec{X: cosLat * cosLon, Y: cosLat * sinLon, Z: sinLat}
}

// Degrees returns the latitude and longitude of a vector, the inverse of Unit.
func (v Vec) Degrees() (latDeg, lonDeg float64) {
	const deg = 180 / math.Pi
	return math.Atan2(v.Z, math.Hypot(v.X, v.Y)) * deg, math.Atan2(v.Y, v.X) * deg
}

// sinCosDeg is exact at multiples of 90 degrees, where the usual conversion to
// radians leaves 1e-16 that would distinguish -180 from 180.
func sinCosDeg(deg float64) (sin, cos float64) {
	quarter := math.RoundToEven(deg / 90)
	s, c := math.Sincos((deg - float64(quarter*90)) * (math.Pi / 180))
	switch int64(quarter) & 3 {
	case 0:
		return s, c
	case 1:
		return c, -s
	case 2:
		return -s, -c
	default:
		return -c, s
	}
}

// Chord2 returns the square of the straight line between two unit vectors, 0
// to 4.
func Chord2(a, b Vec) float64 {
	dx, dy, dz := a.X-b.X, a.Y-b.Y, a.Z-b.Z
	return float64(dx*dx) + float64(dy*dy) + float64(dz*dz)
}

// Distance returns the great-circle distance in metres between two unit
// vectors. It is accurate to about a nanometre at every distance, from nothing
// to the antipode (W. Kahan, "How Futile are Mindless Assessments of Roundoff",
// 2006, gives the half-angle formula).
func Distance(a, b Vec) float64 {
	sx, sy, sz := a.X+b.X, a.Y+b.Y, a.Z+b.Z
	sum2 := float64(sx*sx) + float64(sy*sy) + float64(sz*sz)
	return 2 * EarthRadiusM * math.Atan2(math.Sqrt(Chord2(a, b)), math.Sqrt(sum2))
}

// DistanceDeg is Distance between two places in degrees.
func DistanceDeg(lat1Deg, lon1Deg, lat2Deg, lon2Deg float64) float64 {
	return Distance(Unit(lat1Deg, lon1Deg), Unit(lat2Deg, lon2Deg))
}

// Chord2Bound returns a number that Chord2(a, b) does not exceed whenever
// Distance(a, b) <= distanceM, rounding of both included. It lets a search
// discard by the cheap Chord2 without ever discarding what Distance would
// keep.
//
// Why the margin suffices: both functions round their result by less than
// 1e-14 of it. With t = distance/(2R), chord² = 4 sin² t, and a relative error
// e of t changes sin² t by at most 2e of it, so 1e-12 covers both with a margin.
func Chord2Bound(distanceM float64) float64 {
	half := distanceM / (2 * EarthRadiusM)
	if half >= math.Pi/2 {
		return math.Inf(1)
	}
	s := math.Sin(half)
	return 4 * s * s * (1 + 1e-12)
}

// BoxChord2 returns a lower bound of Chord2(q, p) over all p whose coordinates
// lie between lo and hi, ends included.
//
// It holds for the computed numbers, not only for the real ones: in each
// coordinate |q-p| >= max(lo-q, q-hi, 0), subtraction, squaring and addition
// round monotonically, and both functions do the same operations in the same
// order with no fused step.
func BoxChord2(q, lo, hi Vec) float64 {
	dx := max(lo.X-q.X, q.X-hi.X, 0)
	dy := max(lo.Y-q.Y, q.Y-hi.Y, 0)
	dz := max(lo.Z-q.Z, q.Z-hi.Z, 0)
	return float64(dx*dx) + float64(dy*dy) + float64(dz*dz)
}

// Destination returns the place that is distanceM metres from a place along
// the great circle that leaves it at bearingDeg clockwise from north. At a pole
// the bearing counts from the meridian of the given longitude.
func Destination(latDeg, lonDeg, bearingDeg, distanceM float64) (destLatDeg, destLonDeg float64) {
	sinLat, cosLat := sinCosDeg(latDeg)
	sinLon, cosLon := sinCosDeg(lonDeg)
	sinBrg, cosBrg := sinCosDeg(bearingDeg)
	sinArc, cosArc := math.Sincos(distanceM / EarthRadiusM)
	// The unit tangents at the place.
	east := Vec{X: -sinLon, Y: cosLon}
	north := Vec{X: -sinLat * cosLon, Y: -sinLat * sinLon, Z: cosLat}
	along := func(here, e, n float64) float64 {
		return float64(here*cosArc) + float64(float64(float64(e*sinBrg)+float64(n*cosBrg))*sinArc)
	}
	return Vec{
		X: along(cosLat*cosLon, east.X, north.X),
		Y: along(cosLat*sinLon, east.Y, north.Y),
		Z: along(sinLat, east.Z, north.Z),
	}.Degrees()
}

// chi2Two95 is the 95 % quantile of the chi-square distribution with two
// degrees of freedom, -2 ln 0.05.
const chi2Two95 = 5.991464547107979

// Ellipse95RadiusM returns the larger half axis in metres of the ellipse that
// holds 95 % of a plane normal distribution with the given covariance, in
// square metres. The circle of that radius holds at least as much.
func Ellipse95RadiusM(varEastM2, covEastNorthM2, varNorthM2 float64) float64 {
	mean := (varEastM2 + varNorthM2) / 2
	spread := math.Hypot((varEastM2-varNorthM2)/2, covEastNorthM2)
	return math.Sqrt(chi2Two95 * max(mean+spread, 0))
}
