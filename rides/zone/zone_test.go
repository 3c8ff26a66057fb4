package zone_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/rides/zone"
)

func cell(t *testing.T, latDeg, lonDeg float64, resolution int) h3.Cell {
	c, err := h3.At(latDeg, lonDeg, resolution)
	require.NoError(t, err)
	return c
}

func ofPartition(n int32) func(string) int32 { return func(string) int32 { return n } }

func TestAPositionIsInTheZoneThatHasItsCell(t *testing.T) {
	airport, rank := cell(t, 45.45, 9.28, 7), cell(t, 45.46, 9.19, 11)
	m, err := zone.Parse([]string{"airport=" + airport.String(), "rank-1= " + rank.String() + "  " + cell(t, 45.47, 9.19, 9).String()}, func(name string) int32 {
		return int32(len(name))
	})
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	found := map[string]int{}
	for range 20_000 {
		lat, lon := 45.42+rng.Float64()*0.08, 9.15+rng.Float64()*0.16
		if rng.IntN(4) == 0 { // the small zone is seldom met
			lat, lon = 45.46+rng.Float64()*0.0006-0.0003, 9.19+rng.Float64()*0.0006-0.0003
		}
		want := ""
		if cell(t, lat, lon, 7) == airport {
			want = "airport"
		} else if cell(t, lat, lon, 11) == rank || cell(t, lat, lon, 9) == cell(t, 45.47, 9.19, 9) {
			want = "rank-1"
		}
		got := ""
		if z := m.At(lat, lon); z != nil {
			got = z.Name
			require.EqualValues(t, len(got), z.Partition)
		}
		require.Equal(t, want, got, "%v, %v", lat, lon)
		found[got]++
	}
	require.Greater(t, found["airport"], 100)
	require.Greater(t, found["rank-1"], 100)
	require.Nil(t, m.At(math.NaN(), 9))
	require.Equal(t, "airport", m.OfVehicle(cell(t, 45.45, 9.28, 9), 0, 0).Name, "by the published cell")
	require.Equal(t, "rank-1", m.OfVehicle(cell(t, 45.46, 9.19, 9), 45.46, 9.19).Name, "by the position where the zone is finer")
	require.Nil(t, m.OfVehicle(cell(t, 45.46, 9.19, 9), 45.4605, 9.19))
	require.Len(t, m.Of(7), 1)
	require.Empty(t, m.Of(1))
	var none *zone.Map
	require.Nil(t, none.At(1, 1))
	require.Empty(t, none.Of(0))
}

func TestFaultsOfZones(t *testing.T) {
	fine, coarse := cell(t, 45, 9, 9), cell(t, 45, 9, 6)
	for _, c := range []struct {
		entries []string
		want    string
	}{
		{[]string{"a"}, "must be NAME=CELL CELL ..."},
		{[]string{"a b=" + fine.String()}, "must be NAME=CELL CELL ..."},
		{[]string{"a="}, "a: must have a cell"},
		{[]string{"a=xyz"}, "not an H3 cell"},
		{[]string{"a=" + fine.String(), "a=" + coarse.String()}, "a: must be declared once"},
		{[]string{"a=" + fine.String(), "b=" + fine.String()}, "is in a"},
		{[]string{"a=" + fine.String(), "b=" + coarse.String()}, "a: cell " + fine.String() + " must not lie in cell " + coarse.String() + " of b"},
	} {
		_, err := zone.Parse(c.entries, ofPartition(0))
		require.ErrorContains(t, err, c.want)
	}
}

func TestWhoJoinsAndWhoLeaves(t *testing.T) {
	waits := func(id string, seenMS int64) zone.Presence {
		return zone.Presence{Vehicle: id, SeenMS: seenMS, MayJoin: true, Stays: true}
	}
	r := zone.NewRank(1000)
	joins, leaves := r.Decide(0, nil, []zone.Presence{waits("late", 9), waits("b", 5), waits("a", 5), {Vehicle: "reserved", Stays: true}})
	require.Equal(t, []string{"a", "b", "late"}, joins, "by when they were seen, then by name")
	require.Empty(t, leaves)

	queue := []string{"a", "b", "reserved"}
	joins, leaves = r.Decide(500, queue, []zone.Presence{waits("a", 9), {Vehicle: "reserved", Stays: true}})
	require.Empty(t, joins)
	require.Empty(t, leaves, "b has its grace")
	_, leaves = r.Decide(1499, queue, []zone.Presence{waits("a", 9), {Vehicle: "reserved"}})
	require.Equal(t, []zone.Leave{{"reserved", zone.NotWaiting}}, leaves)
	_, leaves = r.Decide(1500, queue, []zone.Presence{waits("a", 9), {Vehicle: "reserved", Stays: true}})
	require.Equal(t, []zone.Leave{{"b", zone.LeftZone}}, leaves)
	_, leaves = r.Decide(1600, queue, []zone.Presence{waits("a", 9), waits("b", 9), {Vehicle: "reserved", Stays: true}})
	require.Empty(t, leaves, "it has come back")
	_, leaves = r.Decide(1700, queue, []zone.Presence{waits("a", 9), {Vehicle: "reserved", Stays: true}})
	require.Empty(t, leaves, "a new grace")
}
