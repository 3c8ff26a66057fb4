package liveindex

import (
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
	// holds reports whether a vehicle is inside.
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
	a, b := geo.MaxDot(v.eastOfWest, lo, hi) >= slack, geo.MaxDot(v.westOfEast, lo, hi) >= slack
	return a && b || v.wide && (a || b)
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
	cap         geo.Cap
	east, north geo.Vec // axes of the plane
	x, y        []float64
}

// maxPolygonRadiusDeg is how large a polygon may be: the projection ends at 90.
const maxPolygonRadiusDeg = 89.9

// NewPolygon returns the inside of a polygon whose edges are great circles, by
// the even-odd rule. It must fit into a circle of maxPolygonRadiusDeg.
func NewPolygon(vertices []geo.Vec) (*Area, error) {
	if len(vertices) < 3 {
		return nil, fmt.Errorf("%d vertices: must be at least 3", len(vertices))
	}
	p := &polygon{}
	// The mean of the vertices will not do: it lies where they are dense.
	p.cap.Centre = geo.SmallestCap(vertices).Centre
	p.east, p.north = geo.Plane(p.cap.Centre)
	for _, v := range vertices {
		if v.Dot(p.cap.Centre) < math.Cos(maxPolygonRadiusDeg*math.Pi/180) {
			return nil, fmt.Errorf("vertices: must fit into a circle of %v degrees, just less than a hemisphere", maxPolygonRadiusDeg)
		}
		x, y := p.project(v)
		p.x, p.y = append(p.x, x), append(p.y, y)
		// A circle smaller than a hemisphere holds the great circles between
		// places in it, hence all of the polygon.
		p.cap.Chord2 = max(p.cap.Chord2, geo.Chord2(p.cap.Centre, v)*(1+1e-9))
	}
	return &Area{p}, nil
}

func (p *polygon) project(v geo.Vec) (x, y float64) {
	d := v.Dot(p.cap.Centre)
	return v.Dot(p.east) / d, v.Dot(p.north) / d
}

func (p *polygon) mayHold(lo, hi geo.Vec) bool { return p.cap.MayHold(lo, hi) }

// holds counts the edges that a ray towards the east crosses (M. Shimrat,
// "Algorithm 112: position of point relative to polygon", 1962).
func (p *polygon) holds(at geo.Vec, _ *state) bool {
	if geo.Chord2(p.cap.Centre, at) > p.cap.Chord2 {
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
