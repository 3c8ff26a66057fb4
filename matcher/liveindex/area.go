package liveindex

import (
	"errors"
	"fmt"
	"math"

	"github.com/starling-fleet/starling/internal/geo"
)

// Area is a part of the earth's surface. It does not change and may be used by
// many goroutines.
type Area struct{ shape shape }

// shape is what kinds of areas differ in.
type shape interface {
	// mayHold is false only if the box between two corners certainly has no
	// place of the area in it.
	mayHold(lo, hi geo.Vec) bool
	// holds says whether a vehicle is inside.
	holds(at geo.Vec, s *state) bool
}

// viewport lies between two latitudes and two longitudes.
type viewport struct {
	south, west, north, east float64
	minZ, maxZ               float64
	// Points east of the western meridian and west of the eastern one, by less
	// than half a turn, have a positive product with these.
	eastOfWest, westOfEast geo.Vec
	// wide: between the two is more than half a turn, so that either suffices.
	wide bool
}

// NewViewport returns the area between two latitudes and two longitudes in
// degrees, which belong to it. If west is above east it crosses the
// antimeridian.
func NewViewport(south, west, north, east float64) (*Area, error) {
	if !(south >= -90 && south <= north && north <= 90) {
		return nil, fmt.Errorf("latitudes %v and %v: must be between -90 and 90, the southern one first", south, north)
	}
	if !(west >= -180 && west <= 180 && east >= -180 && east <= 180) {
		return nil, fmt.Errorf("longitudes %v and %v: must be between -180 and 180", west, east)
	}
	const slack = 1e-12
	v := &viewport{south: south, west: west, north: north, east: east}
	v.minZ, v.maxZ = geo.Unit(south, 0).Z-slack, geo.Unit(north, 0).Z+slack
	v.eastOfWest, v.westOfEast = geo.Unit(0, west), geo.Unit(0, east)
	v.eastOfWest = geo.Vec{X: -v.eastOfWest.Y, Y: v.eastOfWest.X}
	v.westOfEast = geo.Vec{X: v.westOfEast.Y, Y: -v.westOfEast.X}
	width := east - west
	if west > east {
		width += 360
	}
	v.wide = width > 180
	return &Area{v}, nil
}

func (v *viewport) mayHold(lo, hi geo.Vec) bool {
	if hi.Z < v.minZ || lo.Z > v.maxZ {
		return false
	}
	const slack = -1e-12
	a, b := largestProduct(v.eastOfWest, lo, hi) >= slack, largestProduct(v.westOfEast, lo, hi) >= slack
	return a && b || v.wide && (a || b)
}

// largestProduct is the largest scalar product of n with a point of a box.
func largestProduct(n, lo, hi geo.Vec) float64 {
	return max(n.X*lo.X, n.X*hi.X) + max(n.Y*lo.Y, n.Y*hi.Y) + max(n.Z*lo.Z, n.Z*hi.Z)
}

func (v *viewport) holds(_ geo.Vec, s *state) bool {
	return s.latDeg >= v.south && s.latDeg <= v.north &&
		(v.holdsLon(s.lonDeg) || math.Abs(s.lonDeg) == 180 && v.holdsLon(-s.lonDeg))
}

func (v *viewport) holdsLon(lon float64) bool {
	if v.west <= v.east {
		return lon >= v.west && lon <= v.east
	}
	return lon >= v.west || lon <= v.east
}

// polygon is judged in the gnomonic projection from its centre, in which great
// circles are straight lines.
type polygon struct {
	cap         spherePart
	east, north geo.Vec // axes of the plane
	x, y        []float64
}

// spherePart is what lies within a chord of a centre.
type spherePart struct {
	centre geo.Vec
	chord2 float64
}

func (c spherePart) mayHold(lo, hi geo.Vec) bool {
	return geo.BoxChord2(c.centre, lo, hi) <= c.chord2
}

// NewPolygon returns the inside of a polygon whose edges are great circles, by
// the even-odd rule. It must fit into a circle of 85 degrees around its centre.
func NewPolygon(vertices []geo.Vec) (*Area, error) {
	if len(vertices) < 3 {
		return nil, fmt.Errorf("%d vertices: must be at least 3", len(vertices))
	}
	var sum geo.Vec
	for _, v := range vertices {
		sum = geo.Vec{X: sum.X + v.X, Y: sum.Y + v.Y, Z: sum.Z + v.Z}
	}
	length := math.Sqrt(dot(sum, sum))
	if length < 1e-9 {
		return nil, errors.New("vertices: must fit into less than a hemisphere")
	}
	p := &polygon{}
	p.cap.centre = geo.Vec{X: sum.X / length, Y: sum.Y / length, Z: sum.Z / length}
	p.east, p.north = plane(p.cap.centre)
	for _, v := range vertices {
		if dot(v, p.cap.centre) < math.Cos(85*math.Pi/180) {
			return nil, errors.New("vertices: must fit into less than a hemisphere")
		}
		x, y := p.project(v)
		p.x, p.y = append(p.x, x), append(p.y, y)
		// A circle smaller than a hemisphere holds the great circles between
		// places in it, hence all of the polygon.
		p.cap.chord2 = max(p.cap.chord2, geo.Chord2(p.cap.centre, v)*(1+1e-9))
	}
	return &Area{p}, nil
}

func dot(a, b geo.Vec) float64 { return a.X*b.X + a.Y*b.Y + a.Z*b.Z }

// plane returns two unit vectors at right angles to c and to each other.
func plane(c geo.Vec) (east, north geo.Vec) {
	away := geo.Vec{Z: 1}
	if math.Abs(c.Z) > 0.9 {
		away = geo.Vec{X: 1}
	}
	east = cross(away, c)
	length := math.Sqrt(dot(east, east))
	east = geo.Vec{X: east.X / length, Y: east.Y / length, Z: east.Z / length}
	return east, cross(c, east)
}

func cross(a, b geo.Vec) geo.Vec {
	return geo.Vec{X: a.Y*b.Z - a.Z*b.Y, Y: a.Z*b.X - a.X*b.Z, Z: a.X*b.Y - a.Y*b.X}
}

func (p *polygon) project(v geo.Vec) (x, y float64) {
	d := dot(v, p.cap.centre)
	return dot(v, p.east) / d, dot(v, p.north) / d
}

func (p *polygon) mayHold(lo, hi geo.Vec) bool { return p.cap.mayHold(lo, hi) }

// holds counts the edges that a ray towards the east crosses (M. Shimrat,
// "Algorithm 112: position of point relative to polygon", 1962).
func (p *polygon) holds(at geo.Vec, _ *state) bool {
	if geo.Chord2(p.cap.centre, at) > p.cap.chord2 {
		return false
	}
	x, y := p.project(at)
	inside := false
	for i, j := 0, len(p.x)-1; i < len(p.x); i, j = i+1, i {
		if (p.y[i] > y) != (p.y[j] > y) && x < (p.x[j]-p.x[i])*(y-p.y[i])/(p.y[j]-p.y[i])+p.x[i] {
			inside = !inside
		}
	}
	return inside
}
