package liveindex_test

import (
	"fmt"
	"math"
	"math/rand/v2"
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
	// border is set if a place may be too close to the border for the index's
	// promise to say which side it is on.
	border func(wire.View) bool
}

func (a drawnArea) decides(v wire.View) bool { return a.border == nil || !a.border(v) }

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
	return drawnArea{area: area, holds: func(v wire.View) bool {
		in := func(lon float64) bool {
			if west > east {
				return lon >= west || lon <= east
			}
			return west <= lon && lon <= east
		}
		return v.LatDeg >= south && v.LatDeg <= north && (in(v.LonDeg) || v.LonDeg == 180 && in(-180) || v.LonDeg == -180 && in(180))
	}}
}

func drawPolygon(t *rapid.T, place *rapid.Generator[[2]float64]) drawnArea {
	vertices, area := drawConvex(t, place, []float64{10, 2e3, 1e5, 4e6})
	return drawnArea{
		area:   area,
		holds:  func(v wire.View) bool { return leftOf(vertices, geo.Unit(v.LatDeg, v.LonDeg)) >= 0 },
		border: func(v wire.View) bool { return math.Abs(leftOf(vertices, geo.Unit(v.LatDeg, v.LonDeg))) < edgeErrorRad },
	}
}

// edgeErrorRad and wideEdgeErrorRad are what NewPolygon states.
const (
	edgeErrorRad     = 1e-14
	wideEdgeErrorRad = 1e-9
)

// drawConvex draws a polygon with vertices on a circle. The vertices that it
// returns have the inside on their left.
func drawConvex(t *rapid.T, place *rapid.Generator[[2]float64], radii []float64) ([]geo.Vec, *liveindex.Area) {
	centre := place.Draw(t, "centre")
	radius := rapid.SampledFrom(radii).Draw(t, "radius")
	n := rapid.IntRange(3, 8).Draw(t, "vertices")
	turn := rapid.Float64Range(0, 360).Draw(t, "turn")
	var vertices []geo.Vec
	for i := range n {
		vertices = append(vertices, geo.Unit(geo.Destination(centre[0], centre[1], math.Mod(turn+360-float64(i)*360/float64(n), 360), radius)))
	}
	given := slices.Clone(vertices)
	if rapid.Bool().Draw(t, "backwards") {
		slices.Reverse(given)
	}
	area, err := liveindex.NewPolygon(given)
	require.NoError(t, err)
	return vertices, area
}

// leftOf is how far a place is to the left of the great circle through the edge
// of which it is least so, in radians; negative to the right of it. From the
// differences of the places, so that it is right to some 1e-16 however short the
// edge is.
func leftOf(vertices []geo.Vec, p geo.Vec) float64 {
	least := math.Inf(1)
	for i, a := range vertices {
		b := vertices[(i+1)%len(vertices)]
		across := cross(minus(a, p), minus(b, p))
		normal := cross(minus(a, b), b)
		least = min(least, across.Dot(p)/math.Sqrt(normal.Dot(normal)))
	}
	return least
}

func minus(a, b geo.Vec) geo.Vec { return geo.Vec{X: a.X - b.X, Y: a.Y - b.Y, Z: a.Z - b.Z} }

func cross(a, b geo.Vec) geo.Vec {
	return geo.Vec{X: a.Y*b.Z - a.Z*b.Y, Y: a.Z*b.X - a.X*b.Z, Z: a.X*b.Y - a.Y*b.X}
}

// Polygons decide right what is as far from every edge as they state, next to
// vertices and along edges, on either side.
func TestPolygonEdgesAreAsSharpAsStated(t *testing.T) {
	place := places(hubs(t))
	rapid.Check(t, func(t *rapid.T) {
		errorRad, radii := edgeErrorRad, []float64{1, 10, 2e3, 1e5, 4e6}
		if rapid.Bool().Draw(t, "wide") {
			errorRad, radii = wideEdgeErrorRad, []float64{6e6, 9e6, 9.98e6}
		}
		vertices, area := drawConvex(t, place, radii)
		x := liveindex.New(nil)
		want := []string{}
		for i := range 50 {
			from := rapid.IntRange(0, len(vertices)-1).Draw(t, "edge")
			a, b := vertices[from], vertices[(from+1)%len(vertices)]
			part := rapid.SampledFrom([]float64{0, 0, 1e-9, 0.1, 0.5, 0.99}).Draw(t, "part")
			off := math.Pow(10, rapid.Float64Range(-17, -5).Draw(t, "off"))
			v := viewAt(fmt.Sprintf("v%02d", i), 0, 0)
			v.LatDeg, v.LonDeg = degrees(geo.Vec{
				X: a.X + part*(b.X-a.X) + off*rapid.Float64Range(-1, 1).Draw(t, "x"),
				Y: a.Y + part*(b.Y-a.Y) + off*rapid.Float64Range(-1, 1).Draw(t, "y"),
				Z: a.Z + part*(b.Z-a.Z) + off*rapid.Float64Range(-1, 1).Draw(t, "z"),
			})
			left := leftOf(vertices, geo.Unit(v.LatDeg, v.LonDeg))
			if math.Abs(left) < errorRad {
				continue
			}
			require.NoError(t, x.Upsert(&v))
			if left > 0 {
				want = append(want, v.VehicleID)
			}
		}
		got, _ := x.Within(area, liveindex.Filter{}, 50, nil)
		require.Equal(t, want, append([]string{}, ids(got)...))
	})
}

func degrees(v geo.Vec) (latDeg, lonDeg float64) {
	return math.Atan2(v.Z, math.Hypot(v.X, v.Y)) * 180 / math.Pi, math.Atan2(v.Y, v.X) * 180 / math.Pi
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
	return drawnArea{area: area, holds: func(v wire.View) bool {
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
				if !area.decides(v) {
					continue
				}
				c, err := h3.LatLngToCell(h3.LatLng{Lat: v.LatDeg, Lng: v.LonDeg}, 9)
				require.NoError(t, err)
				v.Cell = uint64(c)
				v.Counts.Accepted = judge[v.VehicleID].Counts.Accepted + 1
				require.NoError(t, x.Upsert(&v))
				judge[v.VehicleID] = v
			}
			if len(judge) > 1 {
				id := rapid.SampledFrom(slices.Sorted(maps(judge))).Draw(t, "forgotten")
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

// Polygons of many edges, drawn without any care, hold what counting every edge
// shows that they hold.
func TestPolygonsAgainstEveryEdge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{3, 9, 40, 300}).Draw(t, "vertices")
		spread := rapid.SampledFrom([]float64{1e-4, 0.1, 20, 80}).Draw(t, "degrees")
		grid := rapid.SampledFrom([]float64{1, 16, 1 << 30}).Draw(t, "grid") // equal and collinear vertices, too
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		draw := func() float64 { return math.Round((2*rng.Float64()-1)*grid) / grid * spread }
		shape := rapid.SampledFrom([]string{"any", "zigzag", "comb far away"}).Draw(t, "shape")
		var vertices []geo.Vec
		for i := range n {
			lat, lon := draw(), draw()
			switch shape {
			case "zigzag":
				lat, lon = spread*float64(1-i%2*2), spread*(2*float64(i)/float64(n)-1)
			case "comb far away":
				if i > 2 {
					lon = spread + lon/1000
				}
			}
			vertices = append(vertices, geo.Unit(lat, lon))
		}
		area, err := liveindex.NewPolygon(vertices)
		if err != nil {
			return // all in one place, or around the centre
		}
		x := liveindex.New(nil)
		want := 0
		holds := everyEdge(vertices)
		for i := range 300 {
			lat, lon := draw()*1.1, draw()*1.1
			v := wire.View{VehicleID: fmt.Sprint(i), DeviceTimeMS: 1}
			v.LatDeg, v.LonDeg = lat, lon
			require.NoError(t, x.Upsert(&v))
			if holds(geo.Unit(lat, lon)) {
				want++
			}
		}
		_, total := x.Within(area, liveindex.Filter{}, 0, nil)
		require.Equal(t, want, total)
		require.Less(t, area.Bytes(), int64(1024+n*1024))
	})
}

// everyEdge is the rule of NewPolygon without any shortening.
func everyEdge(vertices []geo.Vec) func(geo.Vec) bool {
	centre := geo.SmallestCap(vertices).Centre
	east, north := geo.Plane(centre)
	project := func(v geo.Vec) (x, y float64) {
		d := v.Dot(centre)
		return v.Dot(east) / d, v.Dot(north) / d
	}
	return func(at geo.Vec) bool {
		x, y := project(at)
		inside := false
		for i, j := 0, len(vertices)-1; i < len(vertices); i, j = i+1, i {
			xi, yi := project(vertices[i])
			xj, yj := project(vertices[j])
			if (yi > y) != (yj > y) && x < (xj-xi)*(y-yi)/(yj-yi)+xi {
				inside = !inside
			}
		}
		return inside
	}
}

// The first few by id are the same whichever way they are found, while vehicles
// move, come and go.
func TestWithinInOrderWhileTheFleetChanges(t *testing.T) {
	x := liveindex.New(nil)
	rng := rand.New(rand.NewPCG(1, 1))
	upsert := func(i int) {
		v := wire.View{VehicleID: fmt.Sprintf("v%03d", i), DeviceTimeMS: 1 + rng.Int64N(1e9)}
		v.LatDeg, v.LonDeg = rng.Float64(), rng.Float64()
		require.NoError(t, x.Upsert(&v))
	}
	for i := range 400 {
		upsert(i)
	}
	world, err := liveindex.NewViewport(-90, -180, 90, 180)
	require.NoError(t, err)
	done, changing := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(changing)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			upsert(1 + i%399)
			if i%7 == 0 { // v000 stays
				x.Remove(fmt.Sprintf("v%03d", 1+rng.IntN(399)))
			}
		}
	}()
	for range 500 {
		few, total := x.Within(world, liveindex.Filter{}, 5, nil)
		require.Len(t, few, 5)
		require.GreaterOrEqual(t, total, 5)
		require.Equal(t, "v000", few[0].ID)
		require.True(t, slices.IsSortedFunc(few, func(a, b liveindex.Vehicle) int { return strings.Compare(a.ID, b.ID) }))
	}
	close(done)
	<-changing
	few, total := x.Within(world, liveindex.Filter{}, 5, nil)
	all, _ := x.Within(world, liveindex.Filter{}, 1000, nil)
	require.Len(t, all, total)
	require.Equal(t, ids(all[:5]), ids(few))
}
