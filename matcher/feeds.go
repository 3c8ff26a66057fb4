package matcher

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
)

const (
	// coverCubes is how many cubes the area of a watch may be covered with.
	coverCubes = 64
	// A feed remembers this many changes at first and at most.
	minFeed, maxFeed = 8, 1 << 14
	// feedSpan is for how long a feed should remember changes: longer than
	// most calls pause between updates.
	feedSpan = 2 * time.Second
)

// feeds tell calls that watch areas which vehicles changed in the cubes that
// cover these. A change is written once for each level of cubes in use, however
// many watch, and each call reads the feeds of its own cubes when it is ready
// for an update. Nothing is written where nobody watches.
type feeds struct {
	max  int64
	open atomic.Int64

	mu     sync.RWMutex
	levels [liveindex.MaxCoverLevel + 1]int // watchers by the level of their cubes
	byCube map[liveindex.Cube]*feed
	all    map[*areaWatcher]struct{}
}

// feed holds the newest changes in one cube, by number, in a ring.
type feed struct {
	next atomic.Uint64 // number of the next change; written under mu

	mu       sync.Mutex
	ring     []string // ids of vehicles; its length is 0 or a power of two
	oldest   uint64   // number of the oldest change in it
	turned   time.Time
	watchers []*areaWatcher
}

// areaWatcher is one call's place at its feeds. All but the
// last three are the call's own.
type areaWatcher struct {
	level int
	cubes []liveindex.Cube
	feeds []*feed
	read  []uint64 // number of the next change to read, by feed

	// armed says that the call waits and wants to be woken, once.
	armed atomic.Bool
	wake  chan struct{}
	// poked says that the call shall look although nothing has changed.
	poked atomic.Bool
}

func newFeeds(limit int) *feeds {
	return &feeds{max: int64(limit), byCube: map[liveindex.Cube]*feed{}, all: map[*areaWatcher]struct{}{}}
}

// add opens a watch of an area, or returns nil if there are too many. It reads
// all changes from now on.
func (f *feeds) add(a *liveindex.Area) *areaWatcher {
	if f.open.Add(1) > f.max {
		f.open.Add(-1)
		return nil
	}
	w := &areaWatcher{wake: make(chan struct{}, 1)}
	w.level, w.cubes = a.Cover(coverCubes)
	w.feeds, w.read = make([]*feed, len(w.cubes)), make([]uint64, len(w.cubes))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]++
	f.all[w] = struct{}{}
	for i, c := range w.cubes {
		one := f.byCube[c]
		if one == nil {
			one = &feed{}
			f.byCube[c] = one
		}
		one.mu.Lock()
		one.watchers = append(one.watchers, w)
		w.feeds[i], w.read[i] = one, one.next.Load()
		one.mu.Unlock()
	}
	return w
}

func (f *feeds) remove(w *areaWatcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.levels[w.level]--
	delete(f.all, w)
	for i, c := range w.cubes {
		if w.feeds[i].drop(w) {
			delete(f.byCube, c)
		}
	}
	f.open.Add(-1)
}

// drop takes a watcher off and says whether it was the last.
func (f *feed) drop(w *areaWatcher) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.watchers) - 1
	for i, one := range f.watchers {
		if one == w {
			f.watchers[i] = f.watchers[n]
			f.watchers[n] = nil
			f.watchers = f.watchers[:n]
			break
		}
	}
	return n == 0
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
		w.poked.Store(true)
		w.rouse()
	}
}

// rouse wakes a watcher that waits.
func (w *areaWatcher) rouse() {
	if w.armed.Load() && w.armed.CompareAndSwap(true, false) {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// add writes a change and wakes those who wait for one.
func (f *feed) add(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.next.Load()
	if size := uint64(len(f.ring)); size == 0 || n&(size-1) == 0 {
		f.turn(n)
	}
	f.ring[n&uint64(len(f.ring)-1)] = id
	f.oldest = max(f.oldest, n+1-min(n+1, uint64(len(f.ring))))
	f.next.Store(n + 1)
	for _, w := range f.watchers {
		w.rouse()
	}
}

// turn begins another round of the ring, which is doubled if the last round
// took less than feedSpan.
func (f *feed) turn(n uint64) {
	now, size := time.Now(), len(f.ring)
	fast := now.Sub(f.turned) < feedSpan
	f.turned = now
	switch {
	case size == 0:
		f.ring = make([]string, minFeed)
	case fast && size < maxFeed && n >= uint64(size):
		grown := make([]string, 2*size)
		for i := n - uint64(size); i < n; i++ {
			grown[i&uint64(2*size-1)] = f.ring[i&uint64(size-1)]
		}
		f.ring = grown
	}
}

// wait arms the watcher and says whether it has to be waited for: it is false
// when there are changes to be read already.
func (w *areaWatcher) wait() bool {
	w.armed.Store(true)
	if w.poked.Load() {
		w.armed.Store(false)
		return false
	}
	for i, f := range w.feeds {
		if f.next.Load() != w.read[i] {
			w.armed.Store(false)
			return false
		}
	}
	return true
}

// changes returns the ids of all vehicles that have changed in the area's cubes
// since it was called last, some more than once, or says that they were too
// many to be remembered.
func (w *areaWatcher) changes() (ids []string, lost bool) {
	w.poked.Store(false)
	for i, f := range w.feeds {
		n := f.next.Load()
		if n == w.read[i] {
			continue
		}
		f.mu.Lock()
		n = f.next.Load()
		if w.read[i] < f.oldest {
			lost = true
		} else {
			for k := w.read[i]; k < n; k++ {
				ids = append(ids, f.ring[k&uint64(len(f.ring)-1)])
			}
		}
		f.mu.Unlock()
		w.read[i] = n
	}
	return ids, lost
}
