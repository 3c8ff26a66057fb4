package h3_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	uber "github.com/uber/h3-go/v4"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/h3"
)

// step moves a position by about a share of the cell's size.
func step(latDeg, lonDeg, north, east float64) (float64, float64) {
	latDeg = math.Max(-90, math.Min(90, latDeg+north))
	lonDeg += east / math.Max(1e-6, math.Cos(latDeg*math.Pi/180))
	return latDeg, math.Remainder(lonDeg, 360)
}

func edgeDeg(t require.TestingT, resolution int) float64 {
	km, err := uber.HexagonEdgeLengthAvgKm(resolution)
	require.NoError(t, err)
	return km / 111.2
}

func requireSame(t require.TestingT, c *h3.Cursor, latDeg, lonDeg float64, resolution int) {
	want, err := uber.LatLngToCell(uber.LatLng{Lat: latDeg, Lng: lonDeg}, resolution)
	require.NoError(t, err)
	got, err := c.Cell(latDeg, lonDeg, resolution)
	require.NoError(t, err)
	if uint64(got) != uint64(want) {
		require.Failf(t, "wrong cell", "(%v, %v) at %d: %x, want %x", latDeg, lonDeg, resolution, got, uint64(want))
	}
}

func TestCursorAgreesWithH3OnWalks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		resolution := rapid.IntRange(h3.MinResolution, h3.MaxResolution).Draw(t, "resolution")
		lat := rapid.OneOf(rapid.Float64Range(-90, 90), rapid.SampledFrom([]float64{-90, 90, 89.99999, 0})).Draw(t, "lat")
		lon := rapid.OneOf(rapid.Float64Range(-180, 180), rapid.SampledFrom([]float64{-180, 180, 179.99999, 0})).Draw(t, "lon")
		edge := edgeDeg(t, resolution)
		moves := rapid.SliceOfN(rapid.Float64Range(-0.5, 0.5), 2, 60).Draw(t, "moves")
		var c h3.Cursor
		requireSame(t, &c, lat, lon, resolution)
		for i := 0; i+1 < len(moves); i += 2 {
			lat, lon = step(lat, lon, moves[i]*edge, moves[i+1]*edge)
			requireSame(t, &c, lat, lon, resolution)
		}
	})
}

// Around vertices of pentagons, cells crossing a face's edge and the poles, a
// cursor that was set at the centre must not claim a position outside.
func TestCursorAgreesWithH3AroundOddCells(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for resolution := h3.MinResolution; resolution <= h3.MaxResolution; resolution++ {
		pentagons, err := uber.Pentagons(resolution)
		require.NoError(t, err)
		cells := []uber.Cell{}
		for _, p := range pentagons {
			disk, err := p.GridDisk(2)
			require.NoError(t, err)
			cells = append(cells, disk...)
		}
		for _, at := range []uber.LatLng{{Lat: 90}, {Lat: -90}, {Lat: 12, Lng: 180}, {Lat: 30.27, Lng: -97.74}, {}} {
			cell, err := uber.LatLngToCell(at, resolution)
			require.NoError(t, err)
			cells = append(cells, cell)
		}
		edge := edgeDeg(t, resolution)
		for _, cell := range cells {
			centre, err := cell.LatLng()
			require.NoError(t, err)
			var c h3.Cursor
			requireSame(t, &c, centre.Lat, centre.Lng, resolution)
			for range 100 {
				probe := c
				lat, lon := step(centre.Lat, centre.Lng, 1.2*edge*rng.NormFloat64(), 1.2*edge*rng.NormFloat64())
				requireSame(t, &probe, lat, lon, resolution)
			}
		}
	}
}

func TestCursorForgetsItsCellWhenTheResolutionChanges(t *testing.T) {
	var c h3.Cursor
	for _, resolution := range []int{9, 8, 15, 0, 9} {
		requireSame(t, &c, 30.27, -97.74, resolution)
	}
}

func TestCursorRefusesWhatH3Refuses(t *testing.T) {
	var c h3.Cursor
	_, err := c.Cell(30, -97, 16)
	require.ErrorContains(t, err, "resolution 16")
	_, err = c.Cell(math.NaN(), 0, 9)
	require.Error(t, err)
}

// A vehicle that stays near the centre of its cell must not pay for a cgo call.
func TestInsideCostsNothing(t *testing.T) {
	cell, err := uber.LatLngToCell(uber.LatLng{Lat: 30.27, Lng: -97.74}, 9)
	require.NoError(t, err)
	centre, err := cell.LatLng()
	require.NoError(t, err)
	var c h3.Cursor
	requireSame(t, &c, centre.Lat, centre.Lng, 9)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = c.Cell(centre.Lat+0.0008, centre.Lng, 9)
	}), "90 m from the centre of a cell of 174 m")
}

func BenchmarkCursor(b *testing.B) {
	for name, northDeg := range map[string]float64{"inside": 0, "outside": 0.01} {
		b.Run(name, func(b *testing.B) {
			var c h3.Cursor
			for i := range b.N {
				_, _ = c.Cell(30.27+northDeg*float64(i&1), -97.74, 9)
			}
		})
	}
}
