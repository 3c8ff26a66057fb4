package geo

import "math"

// maxPivots bounds the work of SmallestCap. A dozen are usual.
const maxPivots = 200

// SmallestCap returns the smallest cap that holds all of some points of the unit
// sphere, to a part in a million of its chord's square, if one that is smaller
// than a hemisphere does. There must be a point.
//
// It is the cap of at most three of the points: those it stands on are exchanged
// for the point that is farthest outside, until none is (B. Gärtner, "Fast and
// robust smallest enclosing balls", 1999). The cap grows with each exchange.
func SmallestCap(points []Vec) Cap {
	on := append(make([]Vec, 0, 4), points[0])
	found := Cap{Centre: points[0]}
	for range maxPivots {
		farthest := points[0]
		for _, p := range points {
			if Chord2(found.Centre, p) > Chord2(found.Centre, farthest) {
				farthest = p
			}
		}
		if found.holds(farthest) {
			break
		}
		found, on = smallestOf(append(on, farthest))
	}
	return found
}

// holds returns whether a point is in the cap or as good as on its edge: to a part
// in a million, and to the rounding of coordinates.
func (c Cap) holds(p Vec) bool {
	return Chord2(c.Centre, p) <= c.Chord2*(1+1e-6)+1e-14*math.Sqrt(c.Chord2)+1e-30
}

// smallestOf returns the smallest cap that holds two to four points, and those
// that it stands on; the whole sphere if rounding hides it.
func smallestOf(points []Vec) (Cap, []Vec) {
	best, on := Cap{Centre: points[0], Chord2: 4}, points[:1]
	try := func(centre Vec, through ...Vec) {
		centre, length := centre.Normal()
		if length == 0 {
			return
		}
		c := Cap{Centre: centre}
		for _, p := range through {
			c.Chord2 = max(c.Chord2, Chord2(centre, p))
		}
		if c.Chord2 >= best.Chord2 {
			return
		}
		for _, p := range points {
			if !c.holds(p) {
				return
			}
		}
		best, on = c, through
	}
	for i, a := range points {
		for j, b := range points[:i] {
			try(a.Add(b), a, b)
			for _, c := range points[:j] {
				normal := b.minus(a).Cross(c.minus(a))
				// On the side of the plane where the points are.
				try(normal.scaled(math.Copysign(1, normal.Dot(a))), a, b, c)
			}
		}
	}
	return best, append(make([]Vec, 0, 4), on...)
}

func (a Vec) scaled(by float64) Vec { return Vec{X: a.X * by, Y: a.Y * by, Z: a.Z * by} }

func (a Vec) minus(b Vec) Vec { return Vec{X: a.X - b.X, Y: a.Y - b.Y, Z: a.Z - b.Z} }
