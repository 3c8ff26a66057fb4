package geo

import "math"

// Add returns a + b.
func (a Vec) Add(b Vec) Vec { return Vec{X: a.X + b.X, Y: a.Y + b.Y, Z: a.Z + b.Z} }

// Dot returns the scalar product of a and b.
func (a Vec) Dot(b Vec) float64 { return a.X*b.X + a.Y*b.Y + a.Z*b.Z }

// Cross returns the vector product of a and b.
func (a Vec) Cross(b Vec) Vec {
	return Vec{X: a.Y*b.Z - a.Z*b.Y, Y: a.Z*b.X - a.X*b.Z, Z: a.X*b.Y - a.Y*b.X}
}

// Normal returns the unit vector of a's direction and a's length. Of the zero
// vector, it returns that.
func (a Vec) Normal() (unit Vec, length float64) {
	length = math.Sqrt(a.Dot(a))
	if length == 0 {
		return a, 0
	}
	return Vec{X: a.X / length, Y: a.Y / length, Z: a.Z / length}, length
}

// Plane returns two unit vectors at right angles to the unit vector c and to
// each other.
func Plane(c Vec) (east, north Vec) {
	away := Vec{Z: 1}
	if math.Abs(c.Z) > 0.9 {
		away = Vec{X: 1}
	}
	east, _ = away.Cross(c).Normal()
	return east, c.Cross(east)
}

// MaxDot returns the largest scalar product of n with a point of the box between
// two corners.
func MaxDot(n, lo, hi Vec) float64 {
	return max(n.X*lo.X, n.X*hi.X) + max(n.Y*lo.Y, n.Y*hi.Y) + max(n.Z*lo.Z, n.Z*hi.Z)
}

// MinDot returns the smallest.
func MinDot(n, lo, hi Vec) float64 {
	return min(n.X*lo.X, n.X*hi.X) + min(n.Y*lo.Y, n.Y*hi.Y) + min(n.Z*lo.Z, n.Z*hi.Z)
}

// MeetsSphere returns whether the box between two corners may hold a point of
// the unit sphere.
func MeetsSphere(lo, hi Vec) bool {
	const slack = 1e-9
	nearest := BoxChord2(Vec{}, lo, hi)
	farthest := Vec{X: max(-lo.X, hi.X), Y: max(-lo.Y, hi.Y), Z: max(-lo.Z, hi.Z)}
	return nearest <= 1+slack && farthest.Dot(farthest) >= 1-slack
}

// Cap is the part of the sphere within a chord of a centre.
type Cap struct {
	Centre Vec
	Chord2 float64 // the square of the chord
}

// MayHold returns false only if no point of the box between two corners is in
// the cap.
func (c Cap) MayHold(lo, hi Vec) bool { return BoxChord2(c.Centre, lo, hi) <= c.Chord2 }

// RadiusM returns the great-circle radius in metres.
func (c Cap) RadiusM() float64 {
	return 2 * EarthRadiusM * math.Asin(min(1, math.Sqrt(c.Chord2)/2))
}

// Around returns one cap that holds all of some caps, around their common
// centre; the whole sphere if they have none.
func Around(caps []Cap) Cap {
	var sum Vec
	for _, c := range caps {
		sum = sum.Add(c.Centre)
	}
	centre, length := sum.Normal()
	if length < 1e-6 {
		return Cap{Centre: Vec{X: 1}, Chord2: math.Inf(1)}
	}
	widest := 0.0
	for _, c := range caps {
		// The chords of two arcs add up to at least the chord of both.
		widest = max(widest, math.Sqrt(Chord2(centre, c.Centre))+math.Sqrt(c.Chord2))
	}
	return Cap{Centre: centre, Chord2: widest * widest}
}
