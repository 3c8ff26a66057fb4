package liveindex_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// viewClient is a client: what it knows of a View's area after the updates it got.
type viewClient map[string]int64

func (p viewClient) take(t require.TestingT, changed []liveindex.Vehicle, left []string, mayNotKnow bool) {
	for _, v := range changed {
		require.NotContains(t, left, v.ID)
		p[v.ID] = int64(v.Counts.Accepted)
	}
	for _, id := range left {
		if !mayNotKnow {
			require.Contains(t, p, id)
		}
		delete(p, id)
	}
	require.True(t, slices.IsSorted(left))
	require.True(t, slices.IsSortedFunc(changed, func(a, b liveindex.Vehicle) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	}))
}

// TestViewsAgainstBruteForce follows areas by what changed, with a filter whose
// age limit moves on, beside one that looks at everything, and loses clients'
// last updates.
func TestViewsAgainstBruteForce(t *testing.T) {
	hub := hubs(t)
	resumed := 0
	rapid.Check(t, func(t *rapid.T) {
		place := places(rapid.SliceOfN(rapid.SampledFrom(hub), 1, 2).Draw(t, "hubs"))
		view, area := views(place, 60), areas(place).Draw(t, "area")
		var dirty []string
		x, judge := liveindex.New(func(c *liveindex.Change) { dirty = append(dirty, c.ID) }), fleet{}
		touched, scanned := x.NewView(area.area), x.NewView(area.area)
		filter := liveindex.Filter{}
		if rapid.Bool().Draw(t, "choosy") {
			filter.Availabilities = []starlingv1.Availability{1, 2}
		}
		filter.Dispatchable = rapid.Bool().Draw(t, "only dispatchable")
		aging := rapid.Bool().Draw(t, "aging")
		if aging && rapid.Bool().Draw(t, "skewed") {
			filter.Skew = someLater
		}
		fast, slow := viewClient{}, viewClient{}
		behind, behindAt := viewClient{}, uint32(0) // a client that gets updates only now and then
		for round := range 12 {
			for _, v := range rapid.SliceOfN(view, 0, 30).Draw(t, "views") {
				if !area.decides(v) {
					continue
				}
				c, err := h3.LatLngToCell(h3.LatLng{Lat: v.LatDeg, Lng: v.LonDeg}, 9)
				require.NoError(t, err)
				v.Cell = uint64(c)
				v.Counts.Accepted = judge[v.VehicleID].Counts.Accepted + 1
				if v.DeviceTimeMS != 0 {
					v.DeviceTimeMS = int64(1 + round + rapid.IntRange(0, 6).Draw(t, "age"))
				}
				require.NoError(t, x.Upsert(&v))
				judge[v.VehicleID] = v
			}
			if len(judge) > 1 && rapid.Bool().Draw(t, "forget") {
				id := rapid.SampledFrom(slices.Sorted(maps(judge))).Draw(t, "forgotten")
				x.Remove(id)
				delete(judge, id)
			}
			if aging {
				filter.MinFixTimeMS = int64(1 + round)
			}
			want := viewClient{}
			for id, v := range judge {
				if v.DeviceTimeMS != 0 && fresh(filter, v) && area.holds(v) && passes(filter, v) {
					want[id] = v.Counts.Accepted
				}
			}
			resume := behindAt > 0 && rapid.IntRange(0, 3).Draw(t, "resume") == 0
			var changed []liveindex.Vehicle
			var left []string
			switch {
			case resume:
				// The client that was away comes back; the fast one was it.
				var ok bool
				changed, left, ok = touched.Resume(behindAt, filter)
				require.True(t, ok)
				behind.take(t, changed, left, true)
				require.Equal(t, want, behind)
				fast = viewClient{}
				for id, n := range behind {
					fast[id] = n
				}
				resumed++
			case round == 0:
				changed, left = touched.Rescan(filter)
				fast.take(t, changed, left, false)
			default:
				changed, left = touched.Touch(append(dirty, dirty...), filter)
				fast.take(t, changed, left, false)
			}
			dirty = nil
			require.Equal(t, want, fast)
			require.Equal(t, len(want), touched.Len())
			changed, left = scanned.Rescan(filter)
			slow.take(t, changed, left, false)
			require.Equal(t, want, slow)
			if rapid.Bool().Draw(t, "the other gets this") {
				behind, behindAt = viewClient{}, touched.Number()
				for id, n := range fast {
					behind[id] = n
				}
			}
		}
	})
	require.Positive(t, resumed)
}

// TestViewForgetsDepartures: a view that has seen many leave does not resume
// from before.
func TestViewForgetsDepartures(t *testing.T) {
	x := liveindex.New(nil)
	world, err := liveindex.NewViewport(-90, -180, 90, 180)
	require.NoError(t, err)
	view := x.NewView(world)
	_, _, ok := view.Resume(0, liveindex.Filter{})
	require.False(t, ok, "it has sent nothing yet")
	view.Rescan(liveindex.Filter{})
	remembers := func(from uint32) bool {
		_, _, ok := view.Resume(from, liveindex.Filter{})
		return ok
	}
	require.True(t, remembers(1))
	require.False(t, remembers(view.Number()+1))
	for i := range 2000 {
		v := viewAt(fmt.Sprint("v", i), 1, 1)
		require.NoError(t, x.Upsert(&v))
		view.Touch([]string{v.VehicleID}, liveindex.Filter{})
		x.Remove(v.VehicleID)
		_, left := view.Touch([]string{v.VehicleID}, liveindex.Filter{})
		require.Len(t, left, 1)
	}
	require.False(t, remembers(1))
	require.True(t, remembers(view.Number()-100))
	require.Zero(t, view.Len())
	view.Reset()
	require.False(t, remembers(view.Number()), "it has sent nothing again")
	view.Rescan(liveindex.Filter{})
	require.True(t, remembers(view.Number()))
}

func viewAt(id string, latDeg, lonDeg float64) wire.View {
	v := wire.View{VehicleID: id, DeviceTimeMS: 1}
	v.LatDeg, v.LonDeg = latDeg, lonDeg
	return v
}
