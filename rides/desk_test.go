package rides

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/match"
)

const askedFor = 2 * time.Second

// deskAt returns a desk and its clock.
func deskAt(t *testing.T, name match.Name) (*desk, *time.Time) {
	t.Helper()
	s := match.DefaultSettings()
	s.Window.Share, s.Window.Every = 0, 0
	m, err := match.New(name, s)
	require.NoError(t, err)
	now := time.UnixMilli(1_000_000)
	return newDesk(m, askedFor, func() time.Time { return now }), &now
}

func posted(ride string, seconds map[string]int, order ...string) post {
	p := post{request: match.Request{ID: ride, RequestedMS: 990_000, DeadlineMS: 1_300_000}}
	for _, v := range order {
		p.vehicles = append(p.vehicles, match.Candidate{Vehicle: v, Travel: time.Duration(seconds[v]) * time.Second})
	}
	return p
}

func TestRidesOfAllPartitionsAreMatchedTogether(t *testing.T) {
	d, now := deskAt(t, match.Batch)
	one, took := d.match(1, nil)
	require.Empty(t, one)
	require.Zero(t, took)
	d.posted[2] = []post{posted("b", map[string]int{"near": 4}, "near")}
	one, _ = d.match(1, []post{posted("a", map[string]int{"near": 6, "far": 40}, "near", "far")})
	require.Equal(t, []proposal{{"a", "far"}}, one, "together they have the least sum")
	*now = now.Add(time.Millisecond)
	two, _ := d.match(2, []post{posted("b", map[string]int{"near": 4}, "near")})
	require.Equal(t, []proposal{{"b", "near"}}, two, "what the round of another partition proposed, once")
	require.Empty(t, d.posted[2])
}

func TestAVehicleIsNotAskedTwiceAtOnce(t *testing.T) {
	for _, name := range match.Names() {
		d, now := deskAt(t, name)
		waits := func(ride string) []post { return []post{posted(ride, map[string]int{"v": 5}, "v")} }
		got, _ := d.match(0, waits("a"))
		require.Equal(t, []proposal{{"a", "v"}}, got, name)
		*now = now.Add(askedFor - time.Millisecond)
		got, _ = d.match(1, waits("b"))
		require.Empty(t, got, name)
		*now = now.Add(time.Millisecond)
		got, _ = d.match(1, waits("b"))
		require.Equal(t, []proposal{{"b", "v"}}, got, name)
		*now = now.Add(-time.Hour)
		got, _ = d.match(1, waits("c"))
		require.Equal(t, []proposal{{"c", "v"}}, got, "%s: a clock that was set back stops nothing", name)
	}
}

func TestAVehicleThatWasNotAskedAfterAllIsFreeForOthers(t *testing.T) {
	d, now := deskAt(t, match.FIFO)
	waits := func(ride string) []post { return []post{posted(ride, map[string]int{"v": 5}, "v")} }
	got, _ := d.match(0, waits("a"))
	require.Equal(t, []proposal{{"a", "v"}}, got)
	d.refused("v")
	*now = now.Add(2 * askedFor)
	got, _ = d.match(0, waits("a"))
	require.Len(t, got, 1)
	d.dropped("v")
	d.dropped("w")
	got, _ = d.match(1, waits("b"))
	require.Equal(t, []proposal{{"b", "v"}}, got)
	*now = now.Add(askedFor)
	got, _ = d.match(0, waits("a"))
	require.Empty(t, got, "that it refused before is not forgotten")
	*now = now.Add(askedFor)
	got, _ = d.match(0, waits("a"))
	require.Len(t, got, 1)
}

func TestAPartitionThatHasGoneIsForgotten(t *testing.T) {
	d, _ := deskAt(t, match.FIFO)
	d.posted[1] = []post{posted("a", map[string]int{"v": 5}, "v")}
	d.proposed[1] = []proposal{{"c", "w"}}
	d.leave(1)
	got, _ := d.match(2, []post{posted("b", map[string]int{"v": 9}, "v")})
	require.Equal(t, []proposal{{"b", "v"}}, got)
	require.Empty(t, d.proposed)
}

// A tracker remembers so many decisions of a vehicle: one that refuses is left in
// peace for longer and longer.
func TestAVehicleThatRefusesIsAskedLessOften(t *testing.T) {
	d, now := deskAt(t, match.FIFO)
	var asked []time.Duration
	began := *now
	for now.Sub(began) < 30*time.Second {
		if got, _ := d.match(0, []post{posted("a", map[string]int{"v": 5}, "v")}); len(got) > 0 {
			asked = append(asked, now.Sub(began))
			d.refused("v")
		}
		*now = now.Add(500 * time.Millisecond)
	}
	require.Equal(t, []time.Duration{0, 4 * time.Second, 12 * time.Second, 20 * time.Second, 28 * time.Second}, asked)
	*now = now.Add(time.Minute)
	got, _ := d.match(0, []post{posted("a", map[string]int{"v": 5}, "v")})
	require.Len(t, got, 1)
	*now = now.Add(askedFor)
	got, _ = d.match(0, []post{posted("b", map[string]int{"v": 5}, "v")})
	require.Len(t, got, 1, "its refusals are forgotten")
}
