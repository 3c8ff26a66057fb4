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
	// holdsAll is true only if every vehicle whose place is in the box between two
	// corners is certainly inside.
	holdsAll(lo, hi geo.Vec) bool
	// sure reports whether a vehicle is inside, if known, by its place alone: its
	// state stands far away in memory.
	sure(at geo.Vec) (inside, known bool)
	// holds reports whether a vehicle is inside.
	holds(at geo.Vec, s *state) bool
	// bytes is about how much memory the shape takes.
	bytes() int
}

// Bytes is about how much memory the area takes.
func (a *Area) Bytes() int64 { return int64(a.shape.bytes()) }

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

func (v *viewport) bytes() int { return 128 }

func (v *viewport) mayHold(lo, hi geo.Vec) bool {
	if hi.Z < v.minZ || lo.Z > v.maxZ {
		return false
	}
	const slack = -1e-12
	a, b := geo.MaxDot(v.eastOfWest, lo, hi) >= slack, geo.MaxDot(v.westOfEast, lo, hi) >= slack
	return a && b || v.wide && (a || b)
}

func (v *viewport) holdsAll(lo, hi geo.Vec) bool {
	const slack = 1e-11
	if v.south > -90 && lo.Z < v.minZ+slack || v.north < 90 && hi.Z > v.maxZ-slack {
		return false
	}
	east, west := geo.MinDot(v.eastOfWest, lo, hi) > slack, geo.MinDot(v.westOfEast, lo, hi) > slack
	return east && west || v.wide && (east || west)
}

// sure implements shape. Near the borders the degrees decide.
func (v *viewport) sure(at geo.Vec) (inside, known bool) {
	const slack = 1e-11
	east, west := v.eastOfWest.Dot(at), v.westOfEast.Dot(at)
	switch {
	case at.Z < v.minZ-slack, at.Z > v.maxZ+slack:
		return false, true
	case !v.wide && (east < -slack || west < -slack), v.wide && east < -slack && west < -slack:
		return false, true
	case at.Z < v.minZ+slack, at.Z > v.maxZ-slack:
		return false, false
	}
	return true, east > slack && west > slack || v.wide && (east > slack || west > slack)
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
