package liveindex_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/geo"
	ourh3 "github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

// drawnArea is an area and its judge.
type drawnArea struct {
	area  *liveindex.Area
	holds func(wire.View) bool
}

// areas draws viewports, convex polygons and sets of cells.
func areas(place *rapid.Generator[[2]float64]) *rapid.Generator[drawnArea] {
	return rapid.Custom(func(t *rapid.T) drawnArea {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return drawViewport(t, place)
		case 1:
			return drawPolygon(t, place)
		default:
			return drawCells(t, place)
		}
	})
}

func drawViewport(t *rapid.T, place *rapid.Generator[[2]float64]) drawnArea {
	a, b := place.Draw(t, "a corner"), place.Draw(t, "another")
	south, north, west, east := min(a[0], b[0]), max(a[0], b[0]), a[1], b[1]
	area, err := liveindex.NewViewport(south, west, north, east)
	require.NoError(t, err)
	return drawnArea{area, func(v wire.View) bool {
		in := func(lon float64) bool {
			if west > east {
				return lon >= west || lon <= east
			}
			return west <= lon && lon <= east
		}
		return v.LatDeg >= south && v.LatDeg <= north && (in(v.LonDeg) || v.LonDeg == 180 && in(-180) || v.LonDeg == -180 && in(180))
	}}
}

// drawPolygon draws vertices on a circle, in order, so that a place is inside
// when it is to the left of every edge.
func drawPolygon(t *rapid.T, place *rapid.Generator[[2]float64]) drawnArea {
	centre := place.Draw(t, "centre")
	radius := rapid.SampledFrom([]float64{10, 2e3, 1e5, 4e6}).Draw(t, "radius")
	n := rapid.IntRange(3, 8).Draw(t, "vertices")
	turn := rapid.Float64Range(0, 360).Draw(t, "turn")
	var vertices []geo.Vec
	for i := range n {
		vertices = append(vertices, geo.Unit(geo.Destination(centre[0], centre[1], math.Mod(turn+360-float64(i)*360/float64(n), 360), radius)))
	}
	if rapid.Bool().Draw(t, "backwards") {
		defer slices.Reverse(vertices)
	}
	area, err := liveindex.NewPolygon(vertices)
	require.NoError(t, err)
	edges := slices.Clone(vertices)
	return drawnArea{area, func(v wire.View) bool {
		p := geo.Unit(v.LatDeg, v.LonDeg)
		for i, a := range edges {
			b := edges[(i+1)%n]
			if p.X*(a.Y*b.Z-a.Z*b.Y)+p.Y*(a.Z*b.X-a.X*b.Z)+p.Z*(a.X*b.Y-a.Y*b.X) < 0 {
				return false
			}
		}
		return true
	}}
}

func drawCells(t *rapid.T, place *rapid.Generator[[2]float64]) drawnArea {
	var set []ourh3.Cell
	want := map[h3.Cell]bool{}
	resolutions := map[int]bool{}
	for range rapid.SampledFrom([]int{1, 3, 70}).Draw(t, "cells") {
		at := place.Draw(t, "cell at")
		r := rapid.IntRange(0, 11).Draw(t, "resolution")
		c, err := h3.LatLngToCell(h3.LatLng{Lat: at[0], Lng: at[1]}, r)
		require.NoError(t, err)
		set = append(set, ourh3.Cell(c))
		want[c], resolutions[r] = true, true
	}
	area, err := liveindex.NewCells(set)
	require.NoError(t, err)
	return drawnArea{area, func(v wire.View) bool {
		for r := range resolutions {
			c := h3.Cell(v.Cell)
			var err error
			if c.Resolution() >= r {
				c, err = c.Parent(r)
			} else {
				c, err = h3.LatLngToCell(h3.LatLng{Lat: v.LatDeg, Lng: v.LonDeg}, r)
			}
			require.NoError(t, err)
			if want[c] {
				return true
			}
		}
		return false
	}}
}

// TestAreasAgainstBruteForce searches areas of every kind in fleets that crowd
// around awkward places, and follows them while the fleet changes.
func TestAreasAgainstBruteForce(t *testing.T) {
	hub := hubs(t)
	rapid.Check(t, func(t *rapid.T) {
		// Areas and vehicles near the same few places, so that they meet.
		place := places(rapid.SliceOfN(rapid.SampledFrom(hub), 1, 3).Draw(t, "hubs"))
		view, area := views(place, 150), areas(place).Draw(t, "area")
		x, judge := liveindex.New(nil), fleet{}
		follow, held := x.NewView(area.area), map[string]int64{}
		level, cubes := area.area.Cover(40)
		require.LessOrEqual(t, len(cubes), 40)
		for range 4 {
			for _, v := range rapid.SliceOfN(view, 1, 80).Draw(t, "views") {
				c, err := h3.LatLngToCell(h3.LatLng{Lat: v.LatDeg, Lng: v.LonDeg}, 9)
				require.NoError(t, err)
				v.Cell = uint64(c)
				v.Counts.Accepted = judge[v.VehicleID].Counts.Accepted + 1
				require.NoError(t, x.Upsert(&v))
				judge[v.VehicleID] = v
			}
			if id := rapid.SampledFrom(slices.Sorted(maps(judge))).Draw(t, "forgotten"); len(judge) > 1 {
				x.Remove(id)
				delete(judge, id)
			}
			q := queries(place).Draw(t, "query")
			var want []string
			inside := fleet{}
			for id, v := range judge {
				if v.DeviceTimeMS != 0 && area.holds(v) {
					inside[id] = v
					require.Contains(t, cubes, liveindex.CubeOf(geo.Unit(v.LatDeg, v.LonDeg), level))
				}
			}
			for id, v := range inside {
				if fresh(q.Filter, v) && passes(q.Filter, v) {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			found, total := x.Within(area.area, q.Filter, 1000, nil)
			require.Equal(t, len(want), total)
			require.Equal(t, want, ids(found))
			found, total = x.Within(area.area, q.Filter, 3, nil)
			require.Equal(t, len(want), total)
			require.Equal(t, want[:min(3, len(want))], append([]string(nil), ids(found)...))

			q.Within = area.area
			require.Equal(t, inside.nearest(q), foundBy(x.Nearest(q, nil)))

			changed, left := follow.Rescan(liveindex.Filter{})
			for _, v := range changed {
				require.NotEqual(t, held[v.ID], int64(v.Counts.Accepted), "sent without a change")
				held[v.ID] = int64(v.Counts.Accepted)
			}
			for _, id := range left {
				require.Contains(t, held, id)
				delete(held, id)
			}
			now := map[string]int64{}
			for id, v := range inside {
				now[id] = v.Counts.Accepted
			}
			require.Equal(t, now, held)
		}
	})
}

func maps(f fleet) func(func(string) bool) {
	return func(yield func(string) bool) {
		for id := range f {
			if !yield(id) {
				return
			}
		}
	}
}

func ids(vs []liveindex.Vehicle) []string {
	var out []string
	for _, v := range vs {
		out = append(out, v.ID)
	}
	return out
}

func TestAreasRefuse(t *testing.T) {
	_, err := liveindex.NewViewport(10, 0, 5, 0)
	require.ErrorContains(t, err, "latitudes")
	_, err = liveindex.NewViewport(0, 0, math.NaN(), 0)
	require.ErrorContains(t, err, "latitudes")
	_, err = liveindex.NewViewport(0, -181, 5, 0)
	require.ErrorContains(t, err, "longitudes")
	_, err = liveindex.NewPolygon([]geo.Vec{geo.Unit(0, 0), geo.Unit(0, 1)})
	require.ErrorContains(t, err, "at least 3")
	_, err = liveindex.NewPolygon([]geo.Vec{geo.Unit(0, 0), geo.Unit(0, 120), geo.Unit(0, -120)})
	require.ErrorContains(t, err, "hemisphere")
	_, err = liveindex.NewPolygon([]geo.Vec{geo.Unit(0, 0), geo.Unit(80, 0), geo.Unit(0, 179.9)})
	require.ErrorContains(t, err, "hemisphere")
	_, err = liveindex.NewCells([]ourh3.Cell{42})
	require.ErrorContains(t, err, "not an H3 cell")
}

// Whether a polygon is taken depends on how large it is, not on where its vertices
// are dense: near a pole many of them may lie on one side.
func TestWidePolygonsNearAPoleAreTaken(t *testing.T) {
	for _, pole := range []float64{1, -1} {
		for name, edge := range map[string]float64{"around 10 degrees from the pole": 80, "around half of the hemisphere": 45, "nearly a hemisphere": 0.2} {
			vertices := []geo.Vec{geo.Unit(pole*edge, 120), geo.Unit(pole*edge, -120)}
			for lon := -20.0; lon <= 20; lon += 0.5 { // a coast line
				vertices = append(vertices, geo.Unit(pole*edge, lon))
			}
			area, err := liveindex.NewPolygon(vertices)
			require.NoError(t, err, name)
			for _, c := range []struct {
				lat, lon float64
				inside   bool
			}{{90, 0, true}, {edge + 5, 0, true}, {edge - 1, 0, false}, {-30, 60, false}} {
				x := liveindex.New(nil)
				require.NoError(t, x.Upsert(&wire.View{VehicleID: "a", DeviceTimeMS: 1, Estimate: wire.Estimate{LatDeg: pole * c.lat, LonDeg: c.lon}}))
				_, total := x.Within(area, liveindex.Filter{}, 1, nil)
				require.Equal(t, c.inside, total == 1, "%s: %v", name, c)
			}
		}
	}
}

// TestDescendantsReach checks the bound that NewCells relies on where hexagons
// are most distorted: the centres of a cell's descendants must be found by a
// search of the cell.
func TestDescendantsReach(t *testing.T) {
	for _, hub := range hubs(t) {
		for resolution := range 6 {
			cell, err := h3.LatLngToCell(h3.LatLng{Lat: hub[0], Lng: hub[1]}, resolution)
			require.NoError(t, err)
			area, err := liveindex.NewCells([]ourh3.Cell{ourh3.Cell(cell)})
			require.NoError(t, err)
			x := liveindex.New(nil)
			children, err := cell.Children(resolution + 3)
			require.NoError(t, err)
			for _, child := range children {
				at, err := child.LatLng()
				require.NoError(t, err)
				v := wire.View{VehicleID: child.String(), DeviceTimeMS: 1, Cell: uint64(child)}
				v.LatDeg, v.LonDeg = at.Lat, at.Lng
				require.NoError(t, x.Upsert(&v))
			}
			_, total := x.Within(area, liveindex.Filter{}, 0, nil)
			require.Equal(t, len(children), total, "cell %v at %v", cell, hub)
		}
	}
}

func TestRepeatedViewsChangeNothing(t *testing.T) {
	calls := []string{}
	var before liveindex.Standing
	x := liveindex.New(func(c *liveindex.Change) {
		calls = append(calls, strings.Join([]string{c.ID, where(c.From), where(c.To)}, " "))
		require.Equal(t, before, c.Old)
		before = c.New
	})
	v := wire.View{VehicleID: "a", HasAttributes: true, Attributes: wire.Attributes{Type: "van"}}
	for range 2 {
		require.NoError(t, x.Upsert(&v))
	}
	v.DeviceTimeMS = 1
	for range 2 {
		require.NoError(t, x.Upsert(&v))
	}
	v.LatDeg = 90
	require.NoError(t, x.Upsert(&v))
	x.Remove("a")
	x.Remove("a")
	require.Equal(t, []string{"a nowhere nowhere", "a nowhere equator", "a equator pole", "a pole nowhere"}, calls)
}

func where(v geo.Vec) string {
	switch v {
	case geo.Vec{}:
		return "nowhere"
	case geo.Unit(0, 0):
		return "equator"
	}
	return "pole"
}
