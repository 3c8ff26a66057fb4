package watch

import (
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/supply"
)

// Feeds hand on what has changed, from the goroutine that writes the index to
// the calls that watch. They come before the index, which calls them.
type Feeds struct {
	vehicles *feed.Vehicles
	areas    *feed.Areas
	counts   *countFeeds
}

// NewFeeds returns feeds for at most so many calls of each kind; now is the wall
// clock.
func NewFeeds(maxWatchers int, now func() time.Time) *Feeds {
	return &Feeds{
		vehicles: feed.NewVehicles(maxWatchers), areas: feed.NewAreas(maxWatchers, now), counts: newCountFeeds(maxWatchers, now),
	}
}

// VehicleChanged wakes the calls that watch the vehicle or where it was or is.
func (f *Feeds) VehicleChanged(c *liveindex.Change) {
	f.vehicles.Changed(c.ID)
	f.areas.Changed(c)
}

// CountsChanged wakes the calls that watch counts at a resolution.
func (f *Feeds) CountsChanged(resolution int, cell h3.Cell) { f.counts.changed(resolution, cell) }

// StaleChanged wakes the calls whose answers name stale partitions.
func (f *Feeds) StaleChanged() {
	f.areas.WakeAll()
	f.counts.wakeAll()
}

// countFeeds notify calls that watch counts which cells changed, by resolution.
type countFeeds struct {
	max          int64
	open         atomic.Int64
	byResolution [supply.MaxResolution + 1]struct {
		open atomic.Int64
		feed *feed.Feed[h3.Cell]
	}
}

func newCountFeeds(limit int, now func() time.Time) *countFeeds {
	f := &countFeeds{max: int64(limit)}
	for i := range f.byResolution {
		f.byResolution[i].feed = feed.New[h3.Cell](now)
	}
	return f
}

// changed records that a cell's counts have changed, if anybody watches that
// resolution.
func (f *countFeeds) changed(resolution int, cell h3.Cell) {
	if one := &f.byResolution[resolution]; one.open.Load() > 0 {
		one.feed.Add(cell)
	}
}

func (f *countFeeds) wakeAll() {
	for i := range f.byResolution {
		f.byResolution[i].feed.WakeAll()
	}
}
