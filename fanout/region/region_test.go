package region_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/geo"
	ourh3 "github.com/starling-fleet/starling/internal/h3"
)

func list(t testing.TB, cells []h3.Cell) string {
	t.Helper()
	var out []string
	for _, c := range cells {
		out = append(out, c.String())
	}
	return strings.Join(out, " ")
}

func disk(t testing.TB, lat, lon float64, resolution, k int) []h3.Cell {
	t.Helper()
	centre, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: lon}, resolution)
	require.NoError(t, err)
	out, err := centre.GridDisk(k)
	require.NoError(t, err)
	return out
}

func TestParseNamesEveryFault(t *testing.T) {
	for _, c := range []struct {
		entries []string
		want    []string
	}{
		{nil, []string{"0 regions"}},
		{[]string{"west"}, []string{`"west": must be NAME=CELL`}},
		{[]string{"We st=rest"}, []string{"must be NAME=CELL"}},
		{[]string{"a=rest", "a=rest"}, []string{"region a is there twice"}},
		{[]string{"a=rest", "b=rest"}, []string{"regions a and b are both rest"}},
		{[]string{"a=", "b=rest"}, []string{"region a has no cells"}},
		{[]string{"a=42 xyz", "b=rest"}, []string{`"42" is not an H3 cell`, `"xyz" is not an H3 cell`}},
		{[]string{"a=841e149ffffffff", "b=841e149ffffffff"}, []string{"regions a and b overlap: both have cell 841e149ffffffff"}},
		{[]string{"a=841e149ffffffff", "b=831e14fffffffff", "c=rest"}, []string{"overlap: cell 841e149ffffffff lies in 831e14fffffffff"}},
		{[]string{"a=841e149ffffffff"}, []string{"no region has ", "more cells"}},
	} {
		_, err := region.Parse(c.entries)
		require.Error(t, err, "%v", c.entries)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
	}
	roots, err := h3.Res0Cells()
	require.NoError(t, err)
	_, err = region.Parse([]string{"all=" + list(t, roots), "none=rest"})
	require.ErrorContains(t, err, "region none is empty")
	_, err = region.Parse([]string{"some=" + list(t, roots[:100]), "others=" + list(t, roots[100:])})
	require.NoError(t, err, "without a rest, if they cover the earth")
	children, err := roots[7].Children(1)
	require.NoError(t, err)
	_, err = region.Parse([]string{"some=" + list(t, append(children[1:], roots[:7]...)), "others=" + list(t, roots[8:])})
	require.ErrorContains(t, err, "no region has "+children[0].String()+" (and 0 more cells)")
}

func TestLabel(t *testing.T) {
	parse := func(entries ...string) *region.Map {
		m, err := region.Parse(entries)
		require.NoError(t, err)
		return m
	}
	a := parse("a=841e149ffffffff 841e14bffffffff", "b=rest")
	same := parse("b=rest", "a= 841e14bffffffff  841E149ffffffff")
	other := parse("a=841e149ffffffff", "b=rest")
	require.Equal(t, a.Label(a.Number("a")), same.Label(same.Number("a")))
	require.NotEqual(t, a.Label(a.Number("b")), other.Label(other.Number("b")), "the rest is another one")
	require.Equal(t, -1, a.Number("c"))
	require.Equal(t, []string{"b", "a"}, same.Names())
}

// Of agrees with H3's own hierarchy, and DistanceM is a lower bound of the way
// to every place of a region: around pentagons, poles and the antimeridian too.
func TestOfAndDistance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pentagons, err := h3.Pentagons(4)
	require.NoError(t, err)
	places := []h3.LatLng{{Lat: 48.2, Lng: 16.37}, {Lat: 0, Lng: 180}, {Lat: 89.9}, {Lat: -89.9}}
	for _, p := range pentagons[:4] {
		at, err := p.LatLng()
		require.NoError(t, err)
		places = append(places, at)
	}
	positive := 0
	for i, at := range places {
		first := disk(t, at.Lat, at.Lng, 4, 1)
		inner := first[0]
		first = first[1:]
		finer, err := inner.Children(6)
		require.NoError(t, err)
		m, err := region.Parse([]string{"ring=" + list(t, first), "core=" + list(t, finer[:20]), "else=rest"})
		require.NoError(t, err)
		byCell := map[h3.Cell]int{}
		for _, c := range first {
			byCell[c] = 0
		}
		for _, c := range finer[:20] {
			byCell[c] = 1
		}
		for range 2000 {
			lat, lon := geo.Destination(at.Lat, at.Lng, rng.Float64()*360, rng.ExpFloat64()*30_000)
			cell, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: lon}, 9)
			require.NoError(t, err)
			want := 2
			for r := range 10 {
				ancestor, err := cell.Parent(r)
				require.NoError(t, err)
				if n, ok := byCell[ancestor]; ok {
					want = n
				}
			}
			require.Equal(t, want, m.Of(ourh3.Cell(cell), lat, lon), "place %d: %v, %v", i, lat, lon)
			from := geo.Unit(geo.Destination(lat, lon, rng.Float64()*360, rng.ExpFloat64()*50_000))
			bound := m.DistanceM(want, from)
			require.LessOrEqual(t, bound, geo.Distance(from, geo.Unit(lat, lon)))
			if bound > 0 {
				positive++
			}
			// Without a published cell, or with one that is too coarse, the position
			// decides, by the finest cells that are listed.
			sixth, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: lon}, 6)
			require.NoError(t, err)
			want = m.Of(ourh3.Cell(sixth), lat, lon)
			coarse, err := cell.Parent(3)
			require.NoError(t, err)
			require.Equal(t, want, m.Of(0, lat, lon))
			require.Equal(t, want, m.Of(ourh3.Cell(coarse), lat, lon))
			require.LessOrEqual(t, m.DistanceM(want, from), geo.Distance(from, geo.Unit(lat, lon)))
		}
	}
	require.Greater(t, positive, 1000, "the bound must be worth something")
}

// Far inside a region, at three times its cells' size from its border, the rest
// is known to be away: a coarse cell that surrounds the region does not count as
// one circle.
func TestTheRestIsAway(t *testing.T) {
	for _, k := range []int{5, 12} {
		cells := disk(t, 48.2, 16.37, 7, k)
		m, err := region.Parse([]string{"city=" + list(t, cells), "else=rest"})
		require.NoError(t, err)
		centre, err := cells[0].LatLng()
		require.NoError(t, err)
		require.Greater(t, m.DistanceM(1, geo.Unit(centre.Lat, centre.Lng)), float64(k-3)*1500)
		require.Zero(t, m.DistanceM(0, geo.Unit(centre.Lat, centre.Lng)))
	}
}
