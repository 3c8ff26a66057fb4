package match_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/match"
)

// street has requests and vehicles on a line, a second of way apart.
type street struct {
	requests []match.Request
	pickups  map[string]float64
	vehicles map[string]float64
	declined map[string]string // request to a vehicle that it must not be proposed to
}

func newStreet(pickups []float64, vehicles map[string]float64) *street {
	s := &street{pickups: map[string]float64{}, vehicles: vehicles, declined: map[string]string{}}
	for i, at := range pickups {
		id := fmt.Sprint("r", i)
		s.pickups[id] = at
		s.requests = append(s.requests, match.Request{ID: id, RequestedMS: int64(i), DeadlineMS: 300_000})
	}
	return s
}

func (s *street) search(request, most int) []match.Candidate {
	id := s.requests[request].ID
	var out []match.Candidate
	for v, at := range s.vehicles {
		if s.declined[id] != v {
			out = append(out, match.Candidate{Vehicle: v, Travel: time.Duration(math.Abs(at-s.pickups[id]) * float64(time.Second))})
		}
	}
	slices.SortFunc(out, func(a, b match.Candidate) int {
		return cmp.Or(cmp.Compare(a.Travel, b.Travel), cmp.Compare(a.Vehicle, b.Vehicle))
	})
	return out[:min(most, len(out))]
}

// matched returns what is proposed: vehicle by request.
func (s *street) matched(t *testing.T, m match.Matcher, nowMS int64) map[string]string {
	t.Helper()
	out, taken := map[string]string{}, map[string]bool{}
	for _, p := range m.Match(nowMS, s.requests, s.search) {
		id := s.requests[p.Request].ID
		require.Empty(t, out[id], "a request twice")
		require.False(t, taken[p.Vehicle], "a vehicle twice")
		require.NotEqual(t, s.declined[id], p.Vehicle)
		out[id], taken[p.Vehicle] = p.Vehicle, true
	}
	return out
}

func matcher(t *testing.T, name match.Name, change func(*match.Settings)) match.Matcher {
	t.Helper()
	s := match.DefaultSettings()
	if change != nil {
		change(&s)
	}
	m, err := match.New(name, s)
	require.NoError(t, err)
	return m
}

func TestTheOldestTakesItsBest(t *testing.T) {
	s := newStreet([]float64{10, 9}, map[string]float64{"a": 8, "b": 100})
	require.Equal(t, map[string]string{"r0": "a", "r1": "b"}, s.matched(t, matcher(t, match.FIFO, nil), 0))
	require.Equal(t, map[string]string{"r0": "a", "r1": "b"}, s.matched(t, matcher(t, match.Balancing, nil), 0), "as many vehicles as requests")
}

func TestAScarceVehicleTakesItsBest(t *testing.T) {
	s := newStreet([]float64{500, 9, 700}, map[string]float64{"a": 8, "b": 690})
	require.Equal(t, map[string]string{"r0": "b", "r1": "a"}, s.matched(t, matcher(t, match.FIFO, nil), 0))
	require.Equal(t, map[string]string{"r1": "a", "r2": "b"}, s.matched(t, matcher(t, match.Balancing, nil), 0))
}

func TestABatchHasTheLeastSum(t *testing.T) {
	s := newStreet([]float64{100, 90}, map[string]float64{"a": 94, "b": 130})
	require.Equal(t, map[string]string{"r0": "a", "r1": "b"}, s.matched(t, matcher(t, match.FIFO, nil), 60_000), "6 and 40 s of way")
	require.Equal(t, map[string]string{"r0": "b", "r1": "a"}, s.matched(t, matcher(t, match.Batch, nil), 60_000), "30 and 4")
}

func TestTheWindowIsAShareOfTheWayAndEnds(t *testing.T) {
	m := matcher(t, match.Batch, func(c *match.Settings) {
		c.Window = match.Window{Every: time.Second, Share: 0.2, Most: 15 * time.Second}
	})
	near := newStreet([]float64{0}, map[string]float64{"a": 2})
	require.Empty(t, near.matched(t, m, 0))
	require.Empty(t, near.matched(t, m, 500), "no round within a second of the last")
	require.Len(t, near.matched(t, m, 1000), 1)
	require.Len(t, near.matched(t, m, 500), 1, "a clock that was set back does not stop it")
	far := newStreet([]float64{0}, map[string]float64{"a": 500})
	require.Empty(t, far.matched(t, m, 14_000))
	require.Len(t, far.matched(t, m, 15_000), 1)
	require.Equal(t, map[string]string{"r0": "a"}, far.matched(t, m, 16_000), "as long as it is not proposed it is matched anew")
}

func TestTheReachWidens(t *testing.T) {
	m := matcher(t, match.Batch, func(c *match.Settings) {
		c.Reach = match.Reach{First: time.Minute, Widening: 2, Most: 3 * time.Minute}
	})
	s := newStreet([]float64{0}, map[string]float64{"a": 150})
	require.Empty(t, s.matched(t, m, 30_000))
	require.Len(t, s.matched(t, m, 60_000), 1)
	for _, name := range match.Names() {
		s = newStreet([]float64{0}, map[string]float64{"a": 181})
		m := matcher(t, name, func(c *match.Settings) { c.Reach.First, c.Reach.Most = time.Minute, 3*time.Minute })
		require.Empty(t, s.matched(t, m, 299_000), "%s: out of reach for good", name)
	}
}

func TestWhoWaitsLongComesFirst(t *testing.T) {
	s := newStreet([]float64{100, 60}, map[string]float64{"a": 0})
	s.requests[1].RequestedMS = 200_000
	m := func(fairness float64) match.Matcher {
		return matcher(t, match.Batch, func(c *match.Settings) { c.Fairness = fairness })
	}
	require.Equal(t, map[string]string{"r1": "a"}, s.matched(t, m(0), 220_000))
	require.Equal(t, map[string]string{"r0": "a"}, s.matched(t, m(0.5), 220_000))
}

func TestWhoDeclinedIsNotProposedAgain(t *testing.T) {
	for _, name := range match.Names() {
		s := newStreet([]float64{0}, map[string]float64{"a": 5, "b": 20})
		s.declined["r0"] = "a"
		require.Equal(t, map[string]string{"r0": "b"}, s.matched(t, matcher(t, name, nil), 20_000), name)
	}
}

func TestManyAtOnePlaceAllFindVehicles(t *testing.T) {
	pickups, vehicles := make([]float64, 100), map[string]float64{}
	for i := range 120 {
		vehicles[fmt.Sprintf("v%03d", i)] = float64(i)
	}
	for _, name := range match.Names() {
		m := matcher(t, name, func(c *match.Settings) { c.Candidates = 120 })
		require.Len(t, newStreet(pickups, vehicles).matched(t, m, 20_000), 100, name)
	}
}

func TestSettingsAreRefused(t *testing.T) {
	_, err := match.New("best", match.DefaultSettings())
	require.ErrorContains(t, err, "matcher")
	for field, change := range map[string]func(*match.Settings){
		"candidates":     func(s *match.Settings) { s.Candidates = 0 },
		"reach.first":    func(s *match.Settings) { s.Reach.First = 2 * s.Reach.Most },
		"reach.widening": func(s *match.Settings) { s.Reach.Widening = -1 },
		"fairness":       func(s *match.Settings) { s.Fairness = math.NaN() },
		"window.most":    func(s *match.Settings) { s.Window.Most = 16 * time.Second },
		"window.share":   func(s *match.Settings) { s.Window.Share = 2 },
	} {
		s := match.DefaultSettings()
		change(&s)
		_, err := match.New(match.Batch, s)
		require.ErrorContains(t, err, field)
	}
}
