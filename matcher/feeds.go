package matcher

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// coverCubes is how many cubes the area of a watch may be covered with.
const coverCubes = 64

// feeds tell calls that watch areas which vehicles changed in the cubes that
// cover these. A change is written once for each level of cubes in use, however
// many watch, and each call reads the feeds of its own cubes when it is ready
// for an update. Nothing is written where nobody watches.
type feeds struct {
	max  int64
	now  func() time.Time
	open atomic.Int64

	mu     sync.RWMutex
	levels [liveindex.MaxCoverLevel + 1]int // watchers by the level of their cubes
	byCube map[liveindex.Cube]*feed[string]
	all    map[*areaWatcher]struct{}
}

// areaWatcher is one call's place at its feeds.
type areaWatcher struct {
	waiter
	level int
	cubes []liveindex.Cube
	feeds []*feed[string] // of ids
	read  []uint64        // number of the next change to read, by feed
}

func newFeeds(limit int, now func() time.Time) *feeds {
	return &feeds{max: int64(limit), now: now, byCube: map[liveindex.Cube]*feed[string]{}, all: map[*areaWatcher]struct{}{}}
}

// add opens a watch of an area, or returns nil if there are too many. It reads
// all changes from now on.
func (f *feeds) add(a *liveindex.Area) *areaWatcher {
	if f.open.Add(1) > f.max {
		f.open.Add(-1)
		return nil
	}
	w := &areaWatcher{waiter: newWaiter()}
	w.level, w.cubes = a.Cover(coverCubes)
	w.feeds, w.read = make([]*feed[string], len(w.cubes)), make([]uint64, len(w.cubes))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]++
	f.all[w] = struct{}{}
	for i, c := range w.cubes {
		one := f.byCube[c]
		if one == nil {
			one = &feed[string]{now: f.now}
			f.byCube[c] = one
		}
		w.feeds[i], w.read[i] = one, one.join(&w.waiter)
	}
	return w
}

func (f *feeds) remove(w *areaWatcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]--
	delete(f.all, w)
	for i, c := range w.cubes {
		if w.feeds[i].leave(&w.waiter) {
			delete(f.byCube, c)
		}
	}
	f.open.Add(-1)
}

// changed tells a vehicle's change to whoever watches where it was or is. It
// never waits for them.
func (f *feeds) changed(c *liveindex.Change) {
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
			f.tell(was, c.ID)
		}
		if c.To != (geo.Vec{}) {
			if is := liveindex.CubeOf(c.To, level); is != was || c.From == (geo.Vec{}) {
				f.tell(is, c.ID)
			}
		}
	}
}

func (f *feeds) tell(c liveindex.Cube, id string) {
	if one := f.byCube[c]; one != nil {
		one.add(id)
	}
}

// wakeAll wakes all watchers, whether or not something has changed for them.
func (f *feeds) wakeAll() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for w := range f.all {
		w.poke()
	}
}

// wait arms the watcher and says whether it has to be waited for: it is false
// when there are changes to be read already.
func (w *areaWatcher) wait() bool {
	return w.arm(func() bool {
		for i, f := range w.feeds {
			if f.next.Load() != w.read[i] {
				return true
			}
		}
		return false
	})
}

// changes returns the ids of all vehicles that have changed in the area's cubes
// since it was called last, some more than once, or says that they were too
// many to be remembered.
func (w *areaWatcher) changes() (ids []string, lost bool) {
	w.poked.Store(false)
	for i, f := range w.feeds {
		if f.next.Load() == w.read[i] {
			continue
		}
		var all bool
		if ids, all = f.since(&w.read[i], ids); !all {
			lost = true
		}
	}
	return ids, lost
}
