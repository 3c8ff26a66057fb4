package matcher

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// watchers are the open watch calls, by vehicle id. Telling them of a change
// costs next to nothing while nobody watches.
type watchers struct {
	max    int64
	open   atomic.Int64
	seed   maphash.Seed
	shards [64]watcherShard
}

type watcherShard struct {
	open atomic.Int64 // lets the writer pass without the lock
	mu   sync.Mutex
	byID map[string]map[*watcher]struct{}
}

// watcher is one watch call. Its channel holds at most one wake-up: the call
// then looks at the newest state, so that a slow one skips what lies between.
type watcher struct {
	id   string
	wake chan struct{}
}

func newWatchers(limit int) *watchers {
	w := &watchers{max: int64(limit), seed: maphash.MakeSeed()}
	for i := range w.shards {
		w.shards[i].byID = map[string]map[*watcher]struct{}{}
	}
	return w
}

func (w *watchers) shard(id string) *watcherShard {
	return &w.shards[maphash.String(w.seed, id)%uint64(len(w.shards))]
}

// add opens a watch, or returns nil if there are too many.
func (w *watchers) add(id string) *watcher {
	if w.open.Add(1) > w.max {
		w.open.Add(-1)
		return nil
	}
	out := &watcher{id: id, wake: make(chan struct{}, 1)}
	s := w.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] == nil {
		s.byID[id] = map[*watcher]struct{}{}
	}
	s.byID[id][out] = struct{}{}
	s.open.Add(1)
	return out
}

func (w *watchers) remove(one *watcher) {
	s := w.shard(one.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID[one.id], one)
	if len(s.byID[one.id]) == 0 {
		delete(s.byID, one.id)
	}
	s.open.Add(-1)
	w.open.Add(-1)
}

// changed wakes the watchers of a vehicle. It never waits for them.
func (w *watchers) changed(id string) {
	if w.open.Load() == 0 {
		return
	}
	s := w.shard(id)
	if s.open.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.byID[id] {
		select {
		case one.wake <- struct{}{}:
		default:
		}
	}
}

// coverCubes is how many cubes the area of a watch may be covered with.
const coverCubes = 64

// areaWatchers are the open calls that watch areas, by the cubes that cover
// them. Like watchers, they cost next to nothing while nobody watches.
type areaWatchers struct {
	max    int64
	open   atomic.Int64
	mu     sync.Mutex
	levels [liveindex.MaxCoverLevel + 1]int // watchers by the level of their cubes
	byCube map[liveindex.Cube]map[*areaWatcher]struct{}
}

// areaWatcher is one call. Its channel holds at most one wake-up.
type areaWatcher struct {
	level int
	cubes []liveindex.Cube
	wake  chan struct{}
}

func newAreaWatchers(limit int) *areaWatchers {
	return &areaWatchers{max: int64(limit), byCube: map[liveindex.Cube]map[*areaWatcher]struct{}{}}
}

// add opens a watch of an area, or returns nil if there are too many.
func (w *areaWatchers) add(a *liveindex.Area) *areaWatcher {
	if w.open.Add(1) > w.max {
		w.open.Add(-1)
		return nil
	}
	one := &areaWatcher{wake: make(chan struct{}, 1)}
	one.level, one.cubes = a.Cover(coverCubes)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.levels[one.level]++
	for _, c := range one.cubes {
		if w.byCube[c] == nil {
			w.byCube[c] = map[*areaWatcher]struct{}{}
		}
		w.byCube[c][one] = struct{}{}
	}
	return one
}

func (w *areaWatchers) remove(one *areaWatcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.levels[one.level]--
	for _, c := range one.cubes {
		delete(w.byCube[c], one)
		if len(w.byCube[c]) == 0 {
			delete(w.byCube, c)
		}
	}
	w.open.Add(-1)
}

// moved wakes whoever watches where a vehicle was or is. It never waits for
// them.
func (w *areaWatchers) moved(from, to geo.Vec) {
	if w.open.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for level, n := range w.levels {
		if n == 0 {
			continue
		}
		var was liveindex.Cube
		if from != (geo.Vec{}) {
			was = liveindex.CubeOf(from, level)
			w.wakeAll(was)
		}
		if to != (geo.Vec{}) {
			if is := liveindex.CubeOf(to, level); is != was || from == (geo.Vec{}) {
				w.wakeAll(is)
			}
		}
	}
}

func (w *areaWatchers) wakeAll(c liveindex.Cube) {
	for one := range w.byCube[c] {
		select {
		case one.wake <- struct{}{}:
		default:
		}
	}
}
