package region

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
)

// A map that mixes a continent's cell with a neighbourhood's is as large as the
// number of its cells suggests: it took minutes and gigabytes at the start.
func TestCoarseBesideFineCellsAreFewParts(t *testing.T) {
	for _, entries := range [][]string{
		{"a=8001fffffffffff 881e15b701fffff", "else=rest"},
		{"a=8001fffffffffff", "b=8f1e15b701a0000", "else=rest"},
		{"a=8001fffffffffff 8009fffffffffff 8011fffffffffff", "b=8f1e15b701a0000 881e15b711fffff", "else=rest"},
	} {
		m, err := Parse(entries)
		require.NoError(t, err)
		listed, parts := 0, len(m.parts[m.rest])
		for _, cells := range m.byCell {
			listed += len(cells)
		}
		t.Logf("%v: %d parts of the rest", entries, parts)
		require.Less(t, parts, 122+listed*2000)
	}
}

// Near a fine cell the rest is still known finely: a search in the middle of a
// neighbourhood does not ask the rest of the earth.
func TestTheRestIsFineNearFineCells(t *testing.T) {
	city, err := h3.At(48.2, 16.37, 5)
	require.NoError(t, err)
	m, err := Parse([]string{"a=8001fffffffffff " + city.String(), "else=rest"})
	require.NoError(t, err)
	circle, err := city.Cap()
	require.NoError(t, err)
	require.Positive(t, m.DistanceM(1, circle.Centre))
	require.Less(t, m.DistanceM(1, circle.Centre), circle.RadiusM())
	require.Zero(t, m.DistanceM(1, geo.Unit(48.2, 17.5)))
}
