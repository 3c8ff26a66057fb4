package liveindex

import (
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
)

// cells is a set of H3 cells.
type cells struct {
	byResolution [h3.MaxResolution + 1][]h3.Cell // sorted
	parts        []geo.Cap                       // together they hold every cell with its descendants
}

// maxParts is how many cells are looked at one by one when it is decided which
// cubes to visit; more are taken by what holds several of them.
const maxParts = 64

// NewCells returns the area of a set of H3 cells. A vehicle is in a cell if the
// cell that was published with its position is that cell or one of its
// descendants; in a cell that is finer than the published one, if its position
// is in it.
func NewCells(set []h3.Cell) (*Area, error) {
	c := &cells{}
	for _, cell := range set {
		if !cell.Valid() {
			return nil, fmt.Errorf("%s: is not an H3 cell", cell)
		}
		r := cell.Resolution()
		c.byResolution[r] = append(c.byResolution[r], cell)
	}
	for r, some := range c.byResolution {
		slices.Sort(some)
		c.byResolution[r] = slices.Clip(slices.Compact(some))
	}
	for _, cell := range coarsened(set) {
		part, err := cell.Cap()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cell, err)
		}
		c.parts = append(c.parts, part)
	}
	if len(c.parts) > maxParts {
		c.parts = []geo.Cap{geo.Around(c.parts)}
	}
	return &Area{c}, nil
}

// coarsened returns at most maxParts cells that hold all of a set or, where even
// cells of resolution 0 are more, those.
func coarsened(set []h3.Cell) []h3.Cell {
	held := slices.Clone(set)
	slices.Sort(held)
	held = slices.Compact(held)
	for r := h3.MaxResolution - 1; r >= 0 && len(held) > maxParts; r-- {
		for i, cell := range held {
			if cell.Resolution() > r {
				held[i] = cell.Parent(r)
			}
		}
		slices.Sort(held)
		held = slices.Compact(held)
	}
	return held
}

func (c *cells) bytes() int {
	n := 512 + 40*len(c.parts)
	for _, some := range c.byResolution {
		n += 8 * cap(some)
	}
	return n
}

// sure implements shape: the cell that was published decides.
func (c *cells) sure(geo.Vec) (inside, known bool) { return false, false }

// holdsAll implements shape, likewise.
func (c *cells) holdsAll(geo.Vec, geo.Vec) bool { return false }

func (c *cells) mayHold(lo, hi geo.Vec) bool {
	for _, p := range c.parts {
		if p.MayHold(lo, hi) {
			return true
		}
	}
	return false
}

func (c *cells) holds(_ geo.Vec, s *state) bool {
	for r, set := range c.byResolution {
		if set == nil {
			continue
		}
		var in h3.Cell
		if s.cell != 0 && s.cell.Resolution() >= r {
			in = s.cell.Parent(r)
		} else {
			var err error
			if in, err = h3.At(s.latDeg, s.lonDeg, r); err != nil {
				continue // no position that Upsert takes is without a cell
			}
		}
		if _, ok := slices.BinarySearch(set, in); ok {
			return true
		}
	}
	return false
}
