package liveindex_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/geo"
	ourh3 "github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// BenchmarkWithin is what a stranger can make a search of an area cost, with
// building the area, in a fleet in one city.
func BenchmarkWithin(b *testing.B) {
	for _, fleet := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("fleet=%d", fleet), func(b *testing.B) { benchWithin(b, fleet) })
	}
}

func benchWithin(b *testing.B, fleet int) {
	x, views := build(b, layouts[0], fleet)
	south, north, west, east := 90.0, -90.0, 180.0, -180.0
	for _, v := range views {
		south, north, west, east = min(south, v.LatDeg), max(north, v.LatDeg), min(west, v.LonDeg), max(east, v.LonDeg)
	}
	lat, lon := (south+north)/2, (west+east)/2
	var circle, zigzag, level, slanting, wild []geo.Vec
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 1000 {
		circle = append(circle, geo.Unit(geo.Destination(lat, lon, float64(i)*0.36, 40_000)))
		at := west + (east-west)*float64(i/2)/500
		zigzag = append(zigzag, geo.Unit([]float64{south, north}[i%2], at))
		// The same to and fro, across the corner, and between any two places.
		up := south + (north-south)*float64(i/2)/500
		level = append(level, geo.Unit(up, []float64{west, east}[i%2]))
		slanting = append(slanting, []geo.Vec{geo.Unit(up, west), geo.Unit(south, at)}[i%2])
		wild = append(wild, geo.Unit(south+(north-south)*rng.Float64(), west+(east-west)*rng.Float64()))
	}
	cells := cellsAround(b, lat, lon)
	for _, c := range []struct {
		name string
		n    int
		area func() (*liveindex.Area, error)
	}{
		{"world/n=1", 1, func() (*liveindex.Area, error) { return liveindex.NewViewport(-90, -180, 90, 180) }},
		{"world/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewViewport(-90, -180, 90, 180) }},
		{"world/n=10000", 10_000, func() (*liveindex.Area, error) { return liveindex.NewViewport(-90, -180, 90, 180) }},
		{"circle of 1000 vertices/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewPolygon(circle) }},
		{"zigzag of 1000 vertices/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewPolygon(zigzag) }},
		{"level zigzag of 1000 vertices/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewPolygon(level) }},
		{"slanting zigzag of 1000 vertices/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewPolygon(slanting) }},
		{"any 1000 vertices/n=1000", 1000, func() (*liveindex.Area, error) { return liveindex.NewPolygon(wild) }},
		{"10,000 cells/n=1", 1, func() (*liveindex.Area, error) { return liveindex.NewCells(cells) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var found []liveindex.Vehicle
			total := 0
			before := cpuTime()
			for b.Loop() {
				area, err := c.area()
				if err != nil {
					b.Fatal(err)
				}
				found, total = x.Within(area, liveindex.Filter{}, c.n, found[:0])
			}
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(total), "inside")
		})
	}
}

func cellsAround(b *testing.B, lat, lon float64) []ourh3.Cell {
	b.Helper()
	at, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: lon}, 9)
	if err != nil {
		b.Fatal(err)
	}
	disk, err := h3.GridDisk(at, int(math.Sqrt(10_000/3)))
	if err != nil {
		b.Fatal(err)
	}
	var out []ourh3.Cell
	for _, c := range disk[:min(10_000, len(disk))] {
		out = append(out, ourh3.Cell(c))
	}
	return out
}
