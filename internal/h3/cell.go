// Package h3 is Uber's H3: cells, what lies in which, how far they reach, and in
// which cell a position lies. The answers are those of github.com/uber/h3-go;
// whatever can be read from a cell's bits, and in which cell a position lies,
// costs no call into C, and the latter is the same on every machine (see At). It
// is pure: no clock, no goroutine, no I/O. It imports internal/geo, and whatever deals with
// cells may import it.
package h3

import (
	"fmt"
	"strconv"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/geo"
)

// MinResolution and MaxResolution bound H3's resolutions.
const (
	MinResolution = 0
	MaxResolution = 15
)

// Cell is an H3 cell. The zero value stands for none.
//
// In its index the resolution stands in four bits from bit 52 on, the base cell
// in the seven below, then three bits for each resolution from 1 to 15, all ones
// below the cell's own. At any resolution the order of the numbers is that of
// base cells and digits.
type Cell uint64

// BaseCells is how many base cells there are, at most.
const BaseCells = 128

// Parse reads a cell in the usual hexadecimal form.
func Parse(text string) (Cell, error) {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil || !Cell(n).Valid() {
		return 0, fmt.Errorf("%q is not an H3 cell in hexadecimal form", text)
	}
	return Cell(n), nil
}

// Roots returns the cells of resolution 0, which cover the earth.
func Roots() ([]Cell, error) {
	roots, err := h3.Res0Cells()
	if err != nil {
		return nil, fmt.Errorf("H3 cells of resolution 0: %w", err)
	}
	return cells(roots), nil
}

func cells(from []h3.Cell) []Cell {
	out := make([]Cell, len(from))
	for i, c := range from {
		out[i] = Cell(c)
	}
	return out
}

// Valid returns whether there is such a cell.
func (c Cell) Valid() bool { return h3.Cell(c).IsValid() }

// String returns the usual hexadecimal form.
func (c Cell) String() string { return strconv.FormatUint(uint64(c), 16) }

// Resolution returns the cell's resolution.
func (c Cell) Resolution() int { return int(c>>52) & 15 }

// Base returns the number of the cell's base cell, below BaseCells.
func (c Cell) Base() int { return int(c>>45) & (BaseCells - 1) }

// Digit returns which of its parent's children the cell's ancestor at a
// resolution is, 0 to 6, also for what is no cell.
func (c Cell) Digit(resolution int) int { return int(c>>(3*(MaxResolution-resolution))) & 7 % 7 }

// unused has the bits of the digits below a resolution.
func unused(resolution int) Cell { return 1<<(3*(MaxResolution-resolution)) - 1 }

// Parent returns the cell's ancestor at a resolution. At a finer one than the
// cell's it is no cell, but stands where the cell does in the order.
func (c Cell) Parent(resolution int) Cell {
	return c&^(15<<52) | Cell(resolution)<<52 | unused(resolution)
}

// In returns whether the cell is another or a descendant of it.
func (c Cell) In(other Cell) bool {
	r := other.Resolution()
	return r <= c.Resolution() && c.Parent(r) == other
}

// Last is the largest number that a descendant at a resolution may have: every
// digit is 6.
func (c Cell) Last(resolution int) Cell {
	const sixes = 0o666_666_666_666_666
	own := unused(c.Resolution())
	return c&^(15<<52)&^own | Cell(resolution)<<52 | sixes&own&^unused(resolution) | unused(resolution)
}

// Compare orders cells of any resolutions by where they lie, a cell before its
// descendants.
func (c Cell) Compare(other Cell) int {
	a, b := c.Parent(MaxResolution)&^unused(c.Resolution()), other.Parent(MaxResolution)&^unused(other.Resolution())
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return c.Resolution() - other.Resolution()
}

// Children returns the cells of the next finer resolution that the cell has.
func (c Cell) Children() ([]Cell, error) {
	children, err := h3.Cell(c).Children(c.Resolution() + 1)
	if err != nil {
		return nil, fmt.Errorf("children of H3 cell %s: %w", c, err)
	}
	return cells(children), nil
}

// reach is how far, in radii of its outline, the descendants of a cell reach
// from its centre. They overlap its edge: with each step the centres are up to
// 0.6547 (√3/√7) radii off and the radius shrinks by √7, so that on a plane
// 0.6547/(1-1/√7) = 1.053 is never exceeded; what is more allows for the
// distortion of the projection.
const reach = 1.5

// Cap returns a circle that holds the cell and all its descendants.
func (c Cell) Cap() (geo.Cap, error) {
	latDeg, lonDeg, err := c.Centre()
	if err != nil {
		return geo.Cap{}, err
	}
	outline, err := h3.Cell(c).Boundary()
	if err != nil {
		return geo.Cap{}, fmt.Errorf("outline of H3 cell %s: %w", c, err)
	}
	out := geo.Cap{Centre: geo.Unit(latDeg, lonDeg)}
	for _, v := range outline {
		out.Chord2 = max(out.Chord2, geo.Chord2(out.Centre, geo.Unit(v.Lat, v.Lng)))
	}
	out.Chord2 *= reach * reach
	return out, nil
}

// Centre returns the centre of the cell.
func (c Cell) Centre() (latDeg, lonDeg float64, err error) {
	centre, err := h3.Cell(c).LatLng()
	if err != nil {
		return 0, 0, fmt.Errorf("centre of H3 cell %s: %w", c, err)
	}
	return centre.Lat, centre.Lng, nil
}

// Outline returns the corners of the cell in order, each as latitude and longitude.
func (c Cell) Outline() ([][2]float64, error) {
	outline, err := h3.Cell(c).Boundary()
	if err != nil {
		return nil, fmt.Errorf("outline of H3 cell %s: %w", c, err)
	}
	corners := make([][2]float64, len(outline))
	for i, v := range outline {
		corners[i] = [2]float64{v.Lat, v.Lng}
	}
	return corners, nil
}
