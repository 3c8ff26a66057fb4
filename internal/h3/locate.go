package h3

import (
	"fmt"
	"math"
)

// This file finds the cell of a position as H3's latLngToCell does, but with
// operations only that IEEE 754 rounds correctly, in an order that the language
// fixes: every product is converted, which keeps a compiler from fusing it with
// an addition (Go specification, "Floating-point operators"). So all machines
// find the same cell, also for a position that lies on a border to the last bit.
// H3's own answer there hangs on the last bit of the C library's sine and arc
// cosine, which no standard fixes; the step is a function of its log only if
// nothing does.

// At returns the cell of a WGS84 position in degrees, the same on every machine.
// It is the one that H3 returns, unless the position is so near to a border, by
// less than a millimetre, that rounding decides. It fails when the resolution is none of H3's or
// the position is not finite.
func At(latDeg, lonDeg float64, resolution int) (Cell, error) {
	if resolution < MinResolution || resolution > MaxResolution {
		return 0, fmt.Errorf("H3 cell of (%v, %v) at resolution %d: resolutions are %d to %d", latDeg, lonDeg, resolution, MinResolution, MaxResolution)
	}
	if sum := math.Abs(latDeg) + math.Abs(lonDeg); math.IsNaN(sum) || math.IsInf(sum, 0) {
		return 0, fmt.Errorf("H3 cell of (%v, %v) at resolution %d: the position is not finite", latDeg, lonDeg, resolution)
	}
	number, x, y := project(onSphere(latDeg, lonDeg), resolution)
	return index(number, hexagonAt(x, y), resolution), nil
}

// onSphere returns a position as a unit vector.
func onSphere(latDeg, lonDeg float64) vector {
	sinLat, cosLat := sinCosDeg(latDeg)
	sinLon, cosLon := sinCosDeg(lonDeg)
	return vector{float64(cosLat * cosLon), float64(cosLat * sinLon), sinLat}
}

// project returns the face that is nearest to a point of the sphere, and the
// point's coordinates on the face's plane in units of the resolution's grid.
func project(p vector, resolution int) (number int, x, y float64) {
	nearest := -1.0
	for i := range faceTable {
		if c := faceTable[i].middle.dot(p); c > nearest {
			number, nearest = i, c
		}
	}
	axes := &faceTable[number].axes[resolution&1]
	scale := gridScale[resolution] / nearest
	return number, float64(axes[0].dot(p) * scale), float64(axes[1].dot(p) * scale)
}

// gridScale has, for each resolution, how many units of its grid make a radius of
// the sphere: √7^resolution / res0Spacing.
var gridScale = func() (scale [MaxResolution + 1]float64) {
	const sqrt7 = 2.645751311064590590501615753639260425710259183
	even := 1 / res0Spacing
	for r := range scale {
		if r%2 == 0 {
			scale[r] = even
			continue
		}
		scale[r] = float64(even * sqrt7)
		even = float64(even * 7)
	}
	return scale
}()

// hex are the coordinates of a hexagon on a face's plane along three axes at 120
// degrees; none is negative, and at least one is zero.
type hex struct{ i, j, k int }

// normal returns the same hexagon with none negative and one zero.
func (h hex) normal() hex {
	least := min(h.i, h.j, h.k)
	return hex{h.i - least, h.j - least, h.k - least}
}

// hexagonAt returns the hexagon at coordinates of the plane.
func hexagonAt(x, y float64) hex {
	// By the axes i and j, of the first quadrant; the others follow below.
	const perSin60 = 1.1547005383792515290182975610039149112953
	x2 := float64(math.Abs(y) * perSin60)
	x1 := math.Abs(x) + float64(x2/2)
	m1, m2 := math.Floor(x1), math.Floor(x2)
	r1, r2 := x1-m1, x2-m2
	h := hex{i: int(m1), j: int(m2)}
	// The unit rhombus has parts of four hexagons.
	switch {
	case r1 < 1.0/3:
		if r2 >= (1+r1)/2 {
			h.j++
		}
	case r1 < 0.5:
		if r2 >= 1-r1 {
			h.j++
		}
		if 1-r1 <= r2 && r2 < r1+r1 {
			h.i++
		}
	case r1 < 2.0/3:
		if r2 >= 1-r1 {
			h.j++
		}
		if !(r1+r1-1 < r2 && r2 < 1-r1) {
			h.i++
		}
	default:
		h.i++
		if r2 >= r1/2 {
			h.j++
		}
	}
	if x < 0 {
		h.i = h.j - h.i
	}
	if y < 0 {
		h.i, h.j = h.i-h.j, -h.j
	}
	return h.normal()
}

// coarser returns the hexagon of the next coarser resolution, and which of its
// seven children h is.
func (h hex) coarser(odd bool) (parent hex, child hex) {
	i, j := h.i-h.k, h.j-h.k
	if odd {
		parent = hex{i: seventh(3*i - j), j: seventh(i + 2*j)}.normal()
		child = hex{3*parent.i + parent.j, 3*parent.j + parent.k, parent.i + 3*parent.k}
	} else {
		parent = hex{i: seventh(2*i + j), j: seventh(3*j - i)}.normal()
		child = hex{3*parent.i + parent.k, parent.i + 3*parent.j, parent.j + 3*parent.k}
	}
	return parent, hex{h.i - child.i, h.j - child.j, h.k - child.k}.normal()
}

// seventh is n/7 rounded to the nearest.
func seventh(n int) int {
	n += 3
	if n < 0 {
		n -= 6
	}
	return n / 7
}

// Digits, which are children by their direction, are 4 times the first
// coordinate, twice the second and the third.
func (h hex) digit() Cell { return Cell(4*h.i + 2*h.j + h.k) }

const kDigit = 1 // the direction that pentagons lack

// index returns the cell of a face's hexagon.
func index(number int, h hex, resolution int) Cell {
	cell := Cell(1)<<59 | Cell(resolution)<<52 | unused(0)
	for r := resolution; r > 0; r-- {
		parent, child := h.coarser(r%2 == 1)
		cell = cell.withDigit(r, child.digit())
		h = parent
	}
	at := baseCellTable[number][h.i][h.j][h.k]
	cell |= Cell(at.base) << 45
	clockwise, pentagon := pentagonTable[at.base]
	if !pentagon {
		for range at.turns {
			cell = cell.turned(counterclockwise)
		}
		return cell
	}
	if cell.leading() == kDigit {
		if int(clockwise[0]) == number || int(clockwise[1]) == number {
			cell = cell.turned(clockwiseTurn)
		} else {
			cell = cell.turned(counterclockwise)
		}
	}
	for range at.turns {
		cell = cell.turnedPentagon()
	}
	return cell
}

// Where each digit goes by a sixth of a turn.
var (
	counterclockwise = [8]Cell{0, 5, 3, 1, 6, 4, 2, 7}
	clockwiseTurn    = [8]Cell{0, 3, 6, 2, 5, 1, 4, 7}
)

func (c Cell) withDigit(resolution int, digit Cell) Cell {
	shift := 3 * (MaxResolution - resolution)
	return c&^(7<<shift) | digit<<shift
}

// leading returns the first digit that is not zero, or zero.
func (c Cell) leading() int {
	for r := 1; r <= c.Resolution(); r++ {
		if d := c.Digit(r); d != 0 {
			return d
		}
	}
	return 0
}

// turned returns the cell with all digits turned by a sixth.
func (c Cell) turned(turn [8]Cell) Cell {
	for r := 1; r <= c.Resolution(); r++ {
		c = c.withDigit(r, turn[c.Digit(r)])
	}
	return c
}

// turnedPentagon returns the cell of a pentagon with its digits turned
// counterclockwise by a fifth, past the direction that is not there.
func (c Cell) turnedPentagon() Cell {
	first := true
	for r := 1; r <= c.Resolution(); r++ {
		c = c.withDigit(r, counterclockwise[c.Digit(r)])
		if first && c.Digit(r) != 0 {
			first = false
			if c.leading() == kDigit {
				c = c.turned(counterclockwise)
			}
		}
	}
	return c
}

// sinCosDeg returns the sine and the cosine of an angle in degrees, each within
// 2e-16.
func sinCosDeg(deg float64) (sin, cos float64) {
	deg = math.Mod(deg, 360) // exact, as is what follows up to the multiplication
	quarter := math.Round(deg / 90)
	x := float64((deg - float64(90*quarter)) * (math.Pi / 180))
	z := float64(x * x)
	// Cephes: sin.c, Copyright Stephen L. Moshier; errors below 1e-16 up to 45
	// degrees.
	s := x + float64(float64(x*z)*horner(z, 1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6,
		-1.98412698295895385996e-4, 8.33333333332211858878e-3, -1.66666666666666307295e-1))
	c := 1 - float64(z/2) + float64(float64(z*z)*horner(z, -1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7,
		2.48015872888517045348e-5, -1.38888888888730564116e-3, 4.16666666666665929218e-2))
	switch int(quarter) & 3 {
	case 1:
		return c, -s
	case 2:
		return -s, -c
	case 3:
		return -c, s
	}
	return s, c
}

// horner returns the polynomial in z with the coefficients, highest power first.
func horner(z, a, b, c, d, e, f float64) float64 {
	p := float64(a*z) + b
	p = float64(p*z) + c
	p = float64(p*z) + d
	p = float64(p*z) + e
	return float64(p*z) + f
}
