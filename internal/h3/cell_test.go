package h3_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	uber "github.com/uber/h3-go/v4"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
)

// anyCell draws a cell of any resolution, near pentagons too.
func anyCell(t *rapid.T, label string) h3.Cell {
	lat, lon := rapid.Float64Range(-90, 90).Draw(t, label+" lat"), rapid.Float64Range(-180, 180).Draw(t, label+" lon")
	if rapid.IntRange(0, 3).Draw(t, label+" pentagon") == 0 {
		pentagons, err := uber.Pentagons(0)
		require.NoError(t, err)
		at, err := pentagons[rapid.IntRange(0, 11).Draw(t, label+" which")].LatLng()
		require.NoError(t, err)
		lat, lon = at.Lat+lat/1000, at.Lng+lon/1000
	}
	c, err := h3.At(max(-90, min(90, lat)), lon, rapid.IntRange(h3.MinResolution, h3.MaxResolution).Draw(t, label+" resolution"))
	require.NoError(t, err)
	return c
}

// What is read from the bits is what H3 answers.
func TestBitsAgainstH3(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCell(t, "cell")
		judge := uber.Cell(c)
		require.True(t, c.Valid())
		require.Equal(t, judge.Resolution(), c.Resolution())
		require.Equal(t, judge.BaseCellNumber(), c.Base())
		require.Equal(t, judge.String(), c.String())
		parsed, err := h3.Parse(c.String())
		require.NoError(t, err)
		require.Equal(t, c, parsed)
		for r := range c.Resolution() + 1 {
			parent, err := judge.Parent(r)
			require.NoError(t, err)
			require.Equal(t, h3.Cell(parent), c.Parent(r))
			require.True(t, c.In(c.Parent(r)))
			if r > 0 {
				siblings, err := c.Parent(r - 1).Children()
				require.NoError(t, err)
				digits := map[int]bool{}
				for _, s := range siblings {
					require.Less(t, s.Digit(r), 7)
					digits[s.Digit(r)] = true
				}
				require.Len(t, digits, len(siblings), "each child has a digit of its own")
			}
		}
		other := anyCell(t, "other")
		if other.Resolution() <= c.Resolution() {
			parent, err := judge.Parent(other.Resolution())
			require.NoError(t, err)
			require.Equal(t, h3.Cell(parent) == other, c.In(other))
		} else {
			require.False(t, c.In(other))
		}
	})
}

// A cell stands before its descendants, and these before what is behind it.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, other := anyCell(t, "cell"), anyCell(t, "other")
		if c.Resolution() < h3.MaxResolution {
			children, err := c.Children()
			require.NoError(t, err)
			require.True(t, slices.IsSorted(children))
			for _, child := range children {
				require.Negative(t, c.Compare(child))
				require.Positive(t, child.Compare(c))
				require.LessOrEqual(t, child, c.Last(child.Resolution()))
				if !other.In(c) && !c.In(other) {
					require.Equal(t, c.Compare(other) < 0, child.Compare(other) < 0)
				}
			}
		}
		require.Equal(t, c == other, c.Compare(other) == 0)
	})
}

// A cell's circle holds the outlines of its descendants.
func TestCapHoldsDescendants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCell(t, "cell")
		circle, err := c.Cap()
		require.NoError(t, err)
		at := c
		for at.Resolution() < h3.MaxResolution {
			children, err := at.Children()
			require.NoError(t, err)
			at = children[rapid.IntRange(0, len(children)-1).Draw(t, "child")]
			outline, err := uber.Cell(at).Boundary()
			require.NoError(t, err)
			for _, v := range outline {
				p := geo.Unit(v.Lat, v.Lng)
				require.LessOrEqual(t, geo.Chord2(circle.Centre, p), circle.Chord2)
				require.LessOrEqual(t, geo.Distance(circle.Centre, p), circle.RadiusM())
			}
		}
	})
}

func TestNoCells(t *testing.T) {
	for _, text := range []string{"", "0", "8928308280fffff0", "xyz", "ffffffffffffffff", "-1"} {
		_, err := h3.Parse(text)
		require.ErrorContains(t, err, "is not an H3 cell")
	}
	_, err := h3.At(math.NaN(), 0, 5)
	require.Error(t, err)
	roots, err := h3.Roots()
	require.NoError(t, err)
	require.Len(t, roots, 122)
}
