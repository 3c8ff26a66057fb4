package h3_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	uber "github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/h3"
)

var update = flag.Bool("update", false, "rewrite the golden file with what comes out now")

// place is a position in degrees.
type place struct{ lat, lon float64 }

func (p place) towards(q place, share float64) place {
	return place{p.lat + (q.lat-p.lat)*share, p.lon + (q.lon-p.lon)*share}
}

func cellAt(t require.TestingT, p place, resolution int) h3.Cell {
	cell, err := h3.At(p.lat, p.lon, resolution)
	require.NoError(t, err)
	return cell
}

// oddPlaces are where H3's grid is special: towns, the poles, the antimeridian,
// and at a resolution the twelve pentagons, where faces meet.
func oddPlaces(t *testing.T, resolution int) map[string]place {
	out := map[string]place{
		"Austin": {30.27, -97.74}, "Wien": {48.21, 16.37}, "north pole": {89.999999, 12}, "south pole": {-89.999999, -101},
		"antimeridian": {12, 179.999999}, "antimeridian from the west": {-41, -179.999999}, "null island": {0, 0},
	}
	pentagons, err := uber.Pentagons(resolution)
	require.NoError(t, err)
	for i, p := range pentagons {
		centre, err := p.LatLng()
		require.NoError(t, err)
		out[fmt.Sprint("pentagon ", i)] = place{centre.Lat, centre.Lng}
	}
	return out
}

// border goes from a place towards the equator and the prime meridian until the
// cell changes, and returns the last position on this side and the first on the
// other: no number lies between them.
func border(t *testing.T, from place, resolution int) (here, there place) {
	own := cellAt(t, from, resolution)
	here, there = from, from
	for away := edgeDeg(t, resolution); cellAt(t, there, resolution) == own; away *= 1.7 {
		require.Less(t, away, 100.0, "nothing but %s around %v", own, from)
		there = place{from.lat - math.Copysign(away, from.lat), from.lon - math.Copysign(0.3*away, from.lon)}
	}
	for {
		middle := here.towards(there, 0.5)
		if middle == here || middle == there {
			return here, there
		}
		if cellAt(t, middle, resolution) == own {
			here = middle
		} else {
			there = middle
		}
	}
}

// besideDeg are distances from a border, in degrees: 1e-9 is a tenth of a
// millimetre.
var besideDeg = []float64{1e-9, 1e-8, 1e-7}

// aroundBorders calls fn with positions at and beside borders of all
// resolutions, the same on every run. beside is the distance from the border in
// degrees, or 0.
func aroundBorders(t *testing.T, fn func(resolution int, p place, beside float64)) {
	for resolution := h3.MinResolution; resolution <= h3.MaxResolution; resolution++ {
		places := oddPlaces(t, resolution)
		for _, name := range slices.Sorted(maps.Keys(places)) {
			here, there := border(t, places[name], resolution)
			fn(resolution, here, 0)
			fn(resolution, there, 0)
			lengthDeg := math.Hypot(places[name].lat-here.lat, places[name].lon-here.lon)
			for _, d := range besideDeg {
				fn(resolution, here.towards(places[name], d/lengthDeg), d)
				fn(resolution, there.towards(places[name], -d/lengthDeg), d)
			}
		}
	}
}

// TestGoldenBorders holds every machine to the cells that testdata/borders.txt
// states: on borders to the last bit, and beside them. `make golden-arm64` runs
// it on the other architecture.
func TestGoldenBorders(t *testing.T) {
	const path = "testdata/borders.txt"
	if *update {
		writeBorders(t, path)
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var c h3.Cursor
	lines := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		require.Len(t, fields, 4)
		resolution, err := strconv.Atoi(fields[0])
		require.NoError(t, err)
		p := place{fromBits(t, fields[1]), fromBits(t, fields[2])}
		require.Equal(t, fields[3], cellAt(t, p, resolution).String(), line)
		remembering, err := c.Cell(p.lat, p.lon, resolution)
		require.NoError(t, err)
		require.Equal(t, fields[3], remembering.String(), "by a cursor that was beside it: %s", line)
		lines++
	}
	require.Greater(t, lines, 2000)
}

func writeBorders(t *testing.T, path string) {
	var out strings.Builder
	aroundBorders(t, func(resolution int, p place, _ float64) {
		fmt.Fprintf(&out, "%d %016x %016x %s\n", resolution, math.Float64bits(p.lat), math.Float64bits(p.lon), cellAt(t, p, resolution))
	})
	require.NoError(t, os.WriteFile(path, []byte(out.String()), 0o644))
}

func fromBits(t *testing.T, hex string) float64 {
	bits, err := strconv.ParseUint(hex, 16, 64)
	require.NoError(t, err)
	return math.Float64frombits(bits)
}

// Beside a border H3 itself, by cgo, finds the same cell as At.
func TestAtAgreesWithH3BesideBorders(t *testing.T) {
	besides := 0
	aroundBorders(t, func(resolution int, p place, beside float64) {
		if beside == 0 {
			return
		}
		besides++
		want, err := uber.LatLngToCell(uber.LatLng{Lat: p.lat, Lng: p.lon}, resolution)
		require.NoError(t, err)
		require.Equal(t, h3.Cell(want), cellAt(t, p, resolution), "%v, %v degrees beside a border of resolution %d", p, beside, resolution)
	})
	require.Greater(t, besides, 1000)
}

func TestAtAgreesWithH3Everywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 200_000 {
		resolution := i % (h3.MaxResolution + 1)
		p := place{math.Asin(2*rng.Float64()-1) * 180 / math.Pi, 360*rng.Float64() - 180}
		want, err := uber.LatLngToCell(uber.LatLng{Lat: p.lat, Lng: p.lon}, resolution)
		require.NoError(t, err)
		if got := cellAt(t, p, resolution); got != h3.Cell(want) {
			require.Equal(t, h3.Cell(want).String(), got.String(), "%v at %d", p, resolution)
		}
	}
}

func BenchmarkAt(b *testing.B) {
	for b.Loop() {
		_, _ = h3.At(30.27, -97.74, 9)
	}
}

// The sine and the cosine are as exact as a double allows, so that what decides
// at a border is the position's own last bit.
func TestSineAndCosineAreExact(t *testing.T) {
	const bits = 200
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range 4000 {
		deg := 720*rng.Float64() - 360
		if i%8 == 0 {
			deg = float64(rng.IntN(17)-8) * 45
		}
		sin, cos := h3.SinCosDeg(deg)
		wantSin, wantCos := exactSinCosDeg(deg, bits)
		require.InDelta(t, wantSin, sin, 3e-16, "sine of %v", deg)
		require.InDelta(t, wantCos, cos, 3e-16, "cosine of %v", deg)
	}
}

// exactSinCosDeg sums the series with so many bits.
func exactSinCosDeg(deg float64, bits uint) (sin, cos float64) {
	number := func() *big.Float { return new(big.Float).SetPrec(bits) }
	pi, _, err := big.ParseFloat("3.14159265358979323846264338327950288419716939937510582097494459", 10, bits, big.ToNearestEven)
	if err != nil {
		panic(err)
	}
	x := number().Quo(number().Mul(number().SetFloat64(deg), pi), number().SetInt64(180))
	term, sums := number().SetInt64(1), [2]*big.Float{number(), number()}
	for n := range int64(80) {
		sums[n%2].Add(sums[n%2], term)
		term.Quo(number().Mul(term, x), number().SetInt64(n+1))
		if n%2 == 1 {
			term.Neg(term)
		}
	}
	cos, _ = sums[0].Float64()
	sin, _ = sums[1].Float64()
	return sin, cos
}
