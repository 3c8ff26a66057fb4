package liveindex

import (
	"fmt"
	"math"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/geo"
)

// cells is a set of H3 cells.
type cells struct {
	byResolution [16]map[h3.Cell]struct{}
	parts        []spherePart // together they hold every cell with its descendants
}

const (
	// cellReach is how far, in radii of its outline, the descendants of a cell
	// reach from its centre. They overlap its edge: with each step the centres
	// are up to 0.6547 (√3/√7) radii off and the radius shrinks by √7, so that on a plane
	// 0.6547/(1-1/√7) = 1.053 is never exceeded; the rest is room for the
	// distortion of the projection.
	cellReach = 1.5
	// maxParts is how many cells are looked at one by one when it is decided
	// which cubes to visit; more are taken as one.
	maxParts = 64
)

// NewCells returns the area of a set of H3 cells. A vehicle is in a cell if the
// cell that was published with its position is that cell or one of its
// descendants; in a cell that is finer than the published one, if its position
// is in it.
func NewCells(set []uint64) (*Area, error) {
	c := &cells{}
	var sum geo.Vec
	for _, n := range set {
		cell := h3.Cell(n)
		if !cell.IsValid() {
			return nil, fmt.Errorf("%x: is not an H3 cell", n)
		}
		part, err := reach(cell)
		if err != nil {
			return nil, fmt.Errorf("%x: %w", n, err)
		}
		r := resolutionOf(cell)
		if c.byResolution[r] == nil {
			c.byResolution[r] = map[h3.Cell]struct{}{}
		}
		c.byResolution[r][cell] = struct{}{}
		c.parts = append(c.parts, part)
		sum = geo.Vec{X: sum.X + part.centre.X, Y: sum.Y + part.centre.Y, Z: sum.Z + part.centre.Z}
	}
	if len(c.parts) > maxParts {
		c.parts = []spherePart{around(sum, c.parts)}
	}
	return &Area{c}, nil
}

func resolutionOf(c h3.Cell) int { return int(c>>52) & 15 }

// reach returns a circle around a cell that holds all its descendants.
func reach(cell h3.Cell) (spherePart, error) {
	centre, err := cell.LatLng()
	if err != nil {
		return spherePart{}, err
	}
	outline, err := cell.Boundary()
	if err != nil {
		return spherePart{}, err
	}
	part := spherePart{centre: geo.Unit(centre.Lat, centre.Lng)}
	for _, v := range outline {
		part.chord2 = max(part.chord2, geo.Chord2(part.centre, geo.Unit(v.Lat, v.Lng)))
	}
	part.chord2 *= cellReach * cellReach
	return part, nil
}

// around returns one circle that holds all parts, around their common centre.
func around(sum geo.Vec, parts []spherePart) spherePart {
	length := math.Sqrt(dot(sum, sum))
	if length < 1e-6 {
		return spherePart{centre: geo.Vec{X: 1}, chord2: math.Inf(1)}
	}
	out := spherePart{centre: geo.Vec{X: sum.X / length, Y: sum.Y / length, Z: sum.Z / length}}
	for _, p := range parts {
		// The chords of two arcs add up to at least the chord of both.
		out.chord2 = max(out.chord2, math.Sqrt(geo.Chord2(out.centre, p.centre))+math.Sqrt(p.chord2))
	}
	out.chord2 *= out.chord2
	return out
}

func (c *cells) mayHold(lo, hi geo.Vec) bool {
	for _, p := range c.parts {
		if p.mayHold(lo, hi) {
			return true
		}
	}
	return false
}

func (c *cells) holds(_ geo.Vec, s *state) bool {
	own := h3.Cell(s.cell)
	for r, set := range c.byResolution {
		if set == nil {
			continue
		}
		var in h3.Cell
		if own != 0 && resolutionOf(own) >= r {
			in = parentOf(own, r)
		} else {
			var err error
			if in, err = h3.LatLngToCell(h3.LatLng{Lat: s.latDeg, Lng: s.lonDeg}, r); err != nil {
				continue // no position that Upsert takes is without a cell
			}
		}
		if _, ok := set[in]; ok {
			return true
		}
	}
	return false
}

// parentOf returns a cell's ancestor at a resolution that is not finer. In an
// H3 index the resolution stands in four bits from bit 52 on and every finer
// digit is 7, so this needs no call into C.
func parentOf(c h3.Cell, resolution int) h3.Cell {
	c = c&^(15<<52) | h3.Cell(resolution)<<52
	return c | (1<<(3*(15-resolution)) - 1)
}
