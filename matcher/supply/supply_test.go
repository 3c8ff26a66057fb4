package supply_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/geo"
	ourh3 "github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// hubs are places where cells are awkward: a pentagon, the poles, the
// antimeridian, and a city.
var hubs = [][2]float64{{64.7, 10.536}, {89.9, 0}, {-89.9, 20}, {0.01, 179.99}, {0.01, -179.99}, {48.2, 16.37}}

// cellOf asks H3 itself.
func cellOf(t require.TestingT, v wire.View, resolution int) ourh3.Cell {
	c, err := h3.LatLngToCell(h3.LatLng{Lat: v.LatDeg, Lng: v.LonDeg}, resolution)
	require.NoError(t, err)
	return ourh3.Cell(c)
}

// ancestor asks H3 itself.
func ancestor(t require.TestingT, cell ourh3.Cell, resolution int) ourh3.Cell {
	c, err := h3.Cell(cell).Parent(resolution)
	require.NoError(t, err)
	return ourh3.Cell(c)
}

type judge map[string]wire.View

// count is what a look at every vehicle finds.
func (j judge) count(t require.TestingT, resolution, finest int, within []ourh3.Cell, choice supply.Choice) []supply.Cell {
	counts := map[ourh3.Cell]supply.Counts{}
	for _, v := range j {
		is := v.Availability
		if v.DerivedAvailability != 0 {
			is = v.DerivedAvailability
		}
		some, dispatchable := choice.Availabilities, v.Dispatchable && is == starlingv1.Availability_AVAILABILITY_FREE
		if v.DeviceTimeMS == 0 || len(some) > 0 && !slices.Contains(some, is) || choice.Dispatchable && !dispatchable {
			continue
		}
		own := ourh3.Cell(v.Cell)
		if own == 0 || h3.Cell(own).Resolution() < finest {
			own = cellOf(t, v, finest)
		}
		cell := ancestor(t, own, resolution)
		inside := len(within) == 0
		for _, w := range within {
			inside = inside || ancestor(t, cell, h3.Cell(w).Resolution()) == w
		}
		if inside {
			c := counts[cell]
			c.By[is]++
			if dispatchable {
				c.Dispatchable++
			}
			counts[cell] = c
		}
	}
	out := []supply.Cell{}
	for cell, c := range counts {
		out = append(out, supply.Cell{Cell: cell, Counts: c})
	}
	slices.SortFunc(out, func(a, b supply.Cell) int {
		if a.Cell < b.Cell {
			return -1
		}
		return 1
	})
	return out
}

func places() *rapid.Generator[[2]float64] {
	return rapid.Custom(func(t *rapid.T) [2]float64 {
		hub := rapid.SampledFrom(hubs).Draw(t, "hub")
		spread := rapid.SampledFrom([]float64{0.001, 0.05, 3}).Draw(t, "spread")
		lat := hub[0] + spread*rapid.Float64Range(-1, 1).Draw(t, "north")
		lon := hub[1] + spread*rapid.Float64Range(-1, 1).Draw(t, "east")
		return [2]float64{max(-90, min(90, lat)), max(-180, min(180, lon))}
	})
}

// TestCountsAgainstBruteForce moves a fleet, changes what vehicles are, forgets
// some, and compares the counts of random areas with a look at every vehicle,
// and the changes reported with the differences.
func TestCountsAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		finest := rapid.IntRange(0, 10).Draw(t, "finest")
		published := rapid.IntRange(0, 12).Draw(t, "published")
		reported := map[ourh3.Cell]bool{}
		tree := supply.New(finest, func(r int, cell ourh3.Cell) {
			require.Equal(t, r, h3.Cell(cell).Resolution())
			reported[cell] = true
		})
		index, fleet := liveindex.New(tree.Apply), judge{}
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			before := make([][]supply.Cell, finest+1)
			for r := range before {
				before[r] = fleet.count(t, r, finest, nil, supply.Choice{})
			}
			clear(reported)
			for range rapid.IntRange(1, 25).Draw(t, "changes") {
				id := fmt.Sprint("v", rapid.IntRange(0, 30).Draw(t, "id"))
				if rapid.IntRange(0, 7).Draw(t, "forget") == 0 {
					index.Remove(id)
					delete(fleet, id)
					continue
				}
				v := wire.View{VehicleID: id, DeviceTimeMS: int64(min(1, rapid.IntRange(0, 9).Draw(t, "fix")))}
				v.Availability = starlingv1.Availability(rapid.IntRange(0, 5).Draw(t, "availability"))
				v.DerivedAvailability = starlingv1.Availability(rapid.SampledFrom([]int{0, 0, 3, 4}).Draw(t, "derived"))
				v.Dispatchable = rapid.Bool().Draw(t, "dispatchable")
				at := places().Draw(t, "at")
				v.LatDeg, v.LonDeg = at[0], at[1]
				if rapid.IntRange(0, 5).Draw(t, "cell") > 0 {
					v.Cell = uint64(cellOf(t, v, published))
				}
				require.NoError(t, index.Upsert(&v))
				fleet[id] = v
			}
			nodes := 0
			for r := range finest + 1 {
				want := fleet.count(t, r, finest, nil, supply.Choice{})
				got, next := tree.Page(r, 0, nil, supply.Choice{}, 1000, []supply.Cell{})
				require.Zero(t, next)
				require.Equal(t, want, got)
				nodes += len(want)
				for _, c := range differences(before[r], want) {
					require.True(t, reported[c], "%x changed unreported", c)
				}
			}
			require.Equal(t, nodes, tree.Len())
			askAnything(t, tree, fleet)
		}
	})
}

// askAnything asks for some of the counts, in pages.
func askAnything(t *rapid.T, tree *supply.Tree, fleet judge) {
	r := rapid.IntRange(0, tree.Finest()).Draw(t, "resolution")
	var within []ourh3.Cell
	for range rapid.IntRange(0, 5).Draw(t, "cells") {
		at := places().Draw(t, "around")
		v := wire.View{}
		v.LatDeg, v.LonDeg = at[0], at[1]
		within = append(within, cellOf(t, v, rapid.IntRange(0, r).Draw(t, "coarse")))
	}
	choice := supply.Choice{
		Availabilities: rapid.SliceOfDistinct(rapid.SampledFrom([]starlingv1.Availability{0, 1, 2, 3, 4, 5}), rapid.ID[starlingv1.Availability]).Draw(t, "some"),
		Dispatchable:   rapid.Bool().Draw(t, "only dispatchable"),
	}
	want, area := fleet.count(t, r, tree.Finest(), within, choice), supply.NewArea(within)
	size := rapid.IntRange(1, 20).Draw(t, "page")
	got, after := []supply.Cell{}, ourh3.Cell(0)
	for {
		page, next := tree.Page(r, after, area, choice, size, nil)
		require.LessOrEqual(t, len(page), size)
		got = append(got, page...)
		if after = next; next == 0 {
			break
		}
		require.Len(t, page, size)
	}
	require.Equal(t, want, got)
	for _, c := range got {
		require.True(t, area.Holds(c.Cell))
		require.Equal(t, c.Counts, choice.Of(tree.At(c.Cell)))
	}
}

func differences(a, b []supply.Cell) (cells []ourh3.Cell) {
	was := map[ourh3.Cell]supply.Counts{}
	for _, c := range a {
		was[c.Cell] = c.Counts
	}
	for _, c := range b {
		if was[c.Cell] != c.Counts {
			cells = append(cells, c.Cell)
		}
		delete(was, c.Cell)
	}
	for c := range was {
		cells = append(cells, c)
	}
	return cells
}

func BenchmarkApply(b *testing.B) {
	tree := supply.New(9, nil)
	var from, to wire.View
	from.LatDeg, from.LonDeg, to.LatDeg, to.LonDeg = 48.2, 16.37, 48.2, 16.375
	cells := []liveindex.Standing{
		{Known: true, Cell: cellOf(b, from, 9), Availability: 2},
		{Known: true, Cell: cellOf(b, to, 9), Availability: 2},
	}
	require.NotEqual(b, cells[0], cells[1])
	at := geo.Unit(48.2, 16.37)
	c := liveindex.Change{To: at, New: cells[0]}
	tree.Apply(&c)
	b.ReportAllocs()
	for i := range b.N {
		c = liveindex.Change{From: at, To: at, Old: cells[i&1], New: cells[(i+1)&1]}
		tree.Apply(&c)
	}
}
