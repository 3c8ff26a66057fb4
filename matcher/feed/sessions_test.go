package feed_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

func largeArea(t *testing.T) *liveindex.Area {
	root, err := h3.At(48.2, 16.4, 3)
	require.NoError(t, err)
	set := []h3.Cell{root}
	for len(set) < 7*7*7*7 {
		var finer []h3.Cell
		for _, c := range set {
			children, err := c.Children()
			require.NoError(t, err)
			finer = append(finer, children...)
		}
		set = finer
	}
	area, err := liveindex.NewCells(set)
	require.NoError(t, err)
	return area
}

// Sessions that clients leave behind take no more than the budget, whatever their
// areas are, and are gone after a minute; one timer sees to all of them.
func TestSessionsLeftBehindAreBounded(t *testing.T) {
	area := largeArea(t)
	require.Less(t, area.Bytes(), int64(64<<10))
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		s := feed.NewSessions(limit)
		x := liveindex.New(nil)
		var last *feed.Session
		for i := range 10_000 {
			one, turn := s.Open(uint64(i), x.NewView(area))
			require.NotNil(t, one)
			s.Leave(one, turn)
			last = one
			require.LessOrEqual(t, s.Used(), int64(limit))
		}
		require.Greater(t, s.Lingering(), int64(10))
		time.Sleep(30 * time.Second)
		again, turn := s.Resume(last.ID, 9999)
		require.Same(t, last, again, "the newest is kept")
		s.Leave(again, turn)
		time.Sleep(31 * time.Second)
		require.Equal(t, int64(1), s.Lingering(), "only the one that was left later")
		time.Sleep(30 * time.Second)
		require.Zero(t, s.Lingering())
		require.Zero(t, s.Used())
	})
}

// Open sessions count too: with their areas, and with the vehicles that were sent.
func TestOpenSessionsAreCharged(t *testing.T) {
	area := largeArea(t)
	s := feed.NewSessions(1 << 20)
	x := liveindex.New(nil)
	world, err := liveindex.NewViewport(-90, -180, 90, 180)
	require.NoError(t, err)
	first, turn := s.Open(1, x.NewView(world))
	require.NotNil(t, first)
	for i := range 1000 {
		v := wire.View{VehicleID: fmt.Sprint("v", i), DeviceTimeMS: 1}
		require.NoError(t, x.Upsert(&v))
	}
	before := s.Used()
	resumed, full := s.Use(first, turn, func(v *liveindex.View) { v.Rescan(liveindex.Filter{}) })
	require.False(t, resumed)
	require.False(t, full)
	require.Greater(t, s.Used(), before+50_000)

	var open []*feed.Session
	for {
		one, _ := s.Open(2, x.NewView(area))
		if one == nil {
			break
		}
		open = append(open, one)
		require.Less(t, len(open), 1000)
	}
	require.Greater(t, len(open), 5)
	require.LessOrEqual(t, s.Used(), int64(1<<20), "one that was refused is not charged")
	for i := range 9000 {
		v := wire.View{VehicleID: fmt.Sprint("w", i), DeviceTimeMS: 1}
		require.NoError(t, x.Upsert(&v))
	}
	_, full = s.Use(first, turn, func(v *liveindex.View) { v.Rescan(liveindex.Filter{}) })
	require.True(t, full, "a view that grew beyond the budget")
	s.Discard(first)
	for _, one := range open {
		s.Discard(one)
	}
	require.Zero(t, s.Used())
}
