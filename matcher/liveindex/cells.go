package liveindex

import (
	"fmt"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
)

// cells is a set of H3 cells.
type cells struct {
	byResolution [h3.MaxResolution + 1]map[h3.Cell]struct{}
	parts        []geo.Cap // together they hold every cell with its descendants
}

// maxParts is how many cells are looked at one by one when it is decided which
// cubes to visit; more are taken as one.
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
		part, err := cell.Cap()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cell, err)
		}
		r := cell.Resolution()
		if c.byResolution[r] == nil {
			c.byResolution[r] = map[h3.Cell]struct{}{}
		}
		c.byResolution[r][cell] = struct{}{}
		c.parts = append(c.parts, part)
	}
	if len(c.parts) > maxParts {
		c.parts = []geo.Cap{geo.Around(c.parts)}
	}
	return &Area{c}, nil
}

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
		if _, ok := set[in]; ok {
			return true
		}
	}
	return false
}
