package feed

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// coverCubes is how many cubes the area of a watch may be covered with.
const coverCubes = 64

// Areas notify calls that watch areas which vehicles changed in the cubes that
// cover these. A change is written once for each level of cubes in use, however
// many watch, and each call reads the feeds of its own cubes when it is ready
// for an update. Nothing is written where nobody watches.
type Areas struct {
	max  int64
	now  func() time.Time
	open atomic.Int64

	mu     sync.RWMutex
	levels [liveindex.MaxCoverLevel + 1]int // watchers by the level of their cubes
	byCube map[liveindex.Cube]*Feed[string]
	all    map[*AreaWatcher]struct{}
}

// AreaWatcher is one call's place at its feeds.
type AreaWatcher struct {
	Waiter
	level int
	cubes []liveindex.Cube
	feeds []*Feed[string] // of ids
	read  []uint64        // number of the next change to read, by feed
}

// NewAreas returns the feeds of at most so many watchers.
func NewAreas(limit int, now func() time.Time) *Areas {
	return &Areas{max: int64(limit), now: now, byCube: map[liveindex.Cube]*Feed[string]{}, all: map[*AreaWatcher]struct{}{}}
}

// Add opens a watch of an area, or returns nil if there are too many. It reads
// all changes from now on.
func (f *Areas) Add(a *liveindex.Area) *AreaWatcher {
	if f.open.Add(1) > f.max {
		f.open.Add(-1)
		return nil
	}
	w := &AreaWatcher{Waiter: NewWaiter()}
	w.level, w.cubes = a.Cover(coverCubes)
	w.feeds, w.read = make([]*Feed[string], len(w.cubes)), make([]uint64, len(w.cubes))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]++
	f.all[w] = struct{}{}
	for i, c := range w.cubes {
		one := f.byCube[c]
		if one == nil {
			one = &Feed[string]{now: f.now}
			f.byCube[c] = one
		}
		w.feeds[i], w.read[i] = one, one.Join(&w.Waiter)
	}
	return w
}

// Remove ends a watch.
func (f *Areas) Remove(w *AreaWatcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]--
	delete(f.all, w)
	for i, c := range w.cubes {
		if w.feeds[i].Leave(&w.Waiter) {
			delete(f.byCube, c)
		}
	}
	f.open.Add(-1)
}

// Changed notifies those of a vehicle's change who watch where it was or is. It
// never waits for them.
func (f *Areas) Changed(c *liveindex.Change) {
	if f.open.Load() == 0 {
		return
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for level, n := range f.levels {
		if n == 0 {
			continue
		}
		var was liveindex.Cube
		if c.From != (geo.Vec{}) {
			was = liveindex.CubeOf(c.From, level)
			f.publish(was, c.ID)
		}
		if c.To != (geo.Vec{}) {
			if is := liveindex.CubeOf(c.To, level); is != was || c.From == (geo.Vec{}) {
				f.publish(is, c.ID)
			}
		}
	}
}

func (f *Areas) publish(c liveindex.Cube, id string) {
	if one := f.byCube[c]; one != nil {
		one.Add(id)
	}
}

// WakeAll wakes all watchers, whether or not something has changed for them.
func (f *Areas) WakeAll() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for w := range f.all {
		w.force()
	}
}

// Wait arms the watcher and reports whether it has to be waited for: it is false
// when there are changes to be read already.
func (w *AreaWatcher) Wait() bool {
	return w.Arm(func() bool {
		for i, f := range w.feeds {
			if f.next.Load() != w.read[i] {
				return true
			}
		}
		return false
	})
}

// Changes returns the ids of all vehicles that have changed in the area's cubes
// since it was called last, some more than once, or reports that they were too
// many to be remembered.
func (w *AreaWatcher) Changes() (ids []string, lost bool) {
	w.forced.Store(false)
	for i, f := range w.feeds {
		if f.next.Load() == w.read[i] {
			continue
		}
		var all bool
		if ids, all = f.Since(&w.read[i], ids); !all {
			lost = true
		}
	}
	return ids, lost
}

// Open returns the number of watchers.
func (f *Areas) Open() int64 { return f.open.Load() }
