// Package picture draws maps as PNG and SVG with nothing but the standard library, so
// that the binary has no drawing library that servers would have to be patched for.
package picture

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strconv"
)

// Point is a place: latitude and longitude in degrees.
type Point = [2]float64

// Cell is an area with a value.
type Cell struct {
	Name    string
	Outline []Point
	Value   float64
}

// Map is a map of cells coloured by their values. It has at least one.
type Map struct {
	Cells []Cell
	// Width is that of the longer side in pixels.
	Width int
	// Unit says what the values are; with Log they are coloured by their logarithms.
	Unit string
	Log  bool
}

// Forms are what draws a map, by the ending of a file's name.
func Forms() map[string]func(io.Writer, *Map) error {
	return map[string]func(io.Writer, *Map) error{".png": drawPNG, ".svg": drawSVG}
}

// Legend says which values the darkest and the brightest colour stand for.
func (m *Map) Legend() string {
	lo, hi := m.extremes()
	scale := ""
	if m.Log {
		scale = ", logarithmic"
	}
	return fmt.Sprintf("%s (dark) to %s (bright) %s%s", number(lo), number(hi), m.Unit, scale)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

func (m *Map) extremes() (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, c := range m.Cells {
		lo, hi = min(lo, c.Value), max(hi, c.Value)
	}
	return lo, hi
}

// shares are the values' places between the least and the greatest, 0 to 1.
func (m *Map) shares() []float64 {
	at := func(v float64) float64 {
		if m.Log {
			return math.Log(max(v, 1e-9))
		}
		return v
	}
	lo, hi := m.extremes()
	out := make([]float64, len(m.Cells))
	for i, c := range m.Cells {
		if hi > lo {
			out[i] = (at(c.Value) - at(lo)) / (at(hi) - at(lo))
		}
	}
	return out
}

// frame turns places into pixels: Web Mercator, north up.
type frame struct {
	west, north   float64 // of the frame, x and y
	perUnit       float64
	width, height int
	middleLon     float64
}

// margin is left free around the places, as a part of the longer side.
const margin = 0.03

// mercator returns the place on a map whose unit is a degree at the equator; the
// longitude is within half a turn of another, so that the antimeridian is no border.
func mercator(p Point, near float64) (x, y float64) {
	const most = 85.0511 // beyond it a square map ends
	lat := max(-most, min(most, p[0])) * math.Pi / 180
	return near + math.Remainder(p[1]-near, 360), math.Log(math.Tan(math.Pi/4+lat/2)) * 180 / math.Pi
}

func newFrame(places [][]Point, width int) frame {
	f := frame{middleLon: places[0][0][1]}
	west, south, east, north := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, outline := range places {
		for _, p := range outline {
			x, y := mercator(p, f.middleLon)
			west, south, east, north = min(west, x), min(south, y), max(east, x), max(north, y)
		}
	}
	longer := max(east-west, north-south, 1e-6)
	free := longer * margin
	f.west, f.north = west-free, north+free
	f.perUnit = float64(width) / (longer + 2*free)
	f.width, f.height = max(1, int(math.Round((east-west+2*free)*f.perUnit))), max(1, int(math.Round((north-south+2*free)*f.perUnit)))
	return f
}

func (f *frame) pixel(p Point) (x, y float64) {
	x, y = mercator(p, f.middleLon)
	return (x - f.west) * f.perUnit, (f.north - y) * f.perUnit
}

// palette is viridis (Nathaniel Smith and Stéfan van der Walt, CC0), which is even to
// the eye and survives grey printing.
var palette = []color.NRGBA{
	{0x44, 0x01, 0x54, 0xff}, {0x48, 0x28, 0x78, 0xff}, {0x3e, 0x4a, 0x89, 0xff}, {0x31, 0x68, 0x8e, 0xff}, {0x26, 0x82, 0x8e, 0xff},
	{0x1f, 0x9e, 0x89, 0xff}, {0x35, 0xb7, 0x79, 0xff}, {0x6d, 0xcd, 0x59, 0xff}, {0xb4, 0xde, 0x2c, 0xff}, {0xfd, 0xe7, 0x25, 0xff},
}

// colour is that of a share, 0 to 1.
func colour(share float64) color.NRGBA {
	at := max(0, min(1, share)) * float64(len(palette)-1)
	i := min(int(at), len(palette)-2)
	part := at - float64(i)
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a) + part*(float64(b)-float64(a)))) }
	a, b := palette[i], palette[i+1]
	return color.NRGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 0xff}
}

func (m *Map) frame() frame {
	outlines := make([][]Point, len(m.Cells))
	for i, c := range m.Cells {
		outlines[i] = c.Outline
	}
	return newFrame(outlines, m.Width)
}

// barWidth is that of the strip of all colours at the right edge of a PNG, in pixels.
const barWidth = 12

func drawPNG(w io.Writer, m *Map) error {
	f := m.frame()
	img := image.NewNRGBA(image.Rect(0, 0, f.width+2*barWidth, f.height))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	for i, share := range m.shares() {
		fill(img, &f, m.Cells[i].Outline, colour(share))
	}
	for y := range f.height {
		c := colour(1 - float64(y)/float64(max(1, f.height-1)))
		for x := range barWidth {
			img.SetNRGBA(f.width+barWidth+x, y, c)
		}
	}
	return png.Encode(w, img)
}

// fill colours the pixels whose centres are inside an outline.
func fill(img *image.NRGBA, f *frame, outline []Point, c color.NRGBA) {
	xs, ys := make([]float64, len(outline)), make([]float64, len(outline))
	top, bottom, left, right := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for i, p := range outline {
		xs[i], ys[i] = f.pixel(p)
		top, bottom, left, right = min(top, ys[i]), max(bottom, ys[i]), min(left, xs[i]), max(right, xs[i])
	}
	for y := max(0, int(top)); y <= min(f.height-1, int(bottom)); y++ {
		for x := max(0, int(left)); x <= min(f.width-1, int(right)); x++ {
			if inside(xs, ys, float64(x)+0.5, float64(y)+0.5) {
				img.SetNRGBA(x, y, c)
			}
		}
	}
}

// inside counts the edges that a line to the right crosses.
func inside(xs, ys []float64, x, y float64) bool {
	in := false
	for i, j := 0, len(xs)-1; i < len(xs); j, i = i, i+1 {
		if (ys[i] > y) != (ys[j] > y) && x < xs[i]+(xs[j]-xs[i])*(y-ys[i])/(ys[j]-ys[i]) {
			in = !in
		}
	}
	return in
}
