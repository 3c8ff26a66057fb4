package liveindex

import (
	"container/heap"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/internal/geo"
)

// View follows the vehicles inside an area for one watcher. One goroutine at a
// time may use it. It remembers which vehicles it sent, in about 80 bytes and the id
// for each, and about as many that have left.
type View struct {
	index *Index
	area  *Area
	// aging is set if the filter has a MinFixTimeMS, so that vehicles leave
	// by growing old.
	aging  bool
	held   map[string]sent
	number uint32 // of the last update

	// departed are those who left, in order. Who left in the updates up to
	// forgotten may be missing.
	departed  []departure
	forgotten uint32

	ages ages // all who are held are in it, if aging
}

// sent is what a View last sent of a vehicle.
type sent struct {
	born uint64
	at   uint32 // the number of that update
	seen uint32 // the number of the last Rescan that met it
}

type departure struct {
	id string
	at uint32
}

// minDeparted is how many departures a View remembers at least.
const minDeparted = 256

// NewView returns a view of an area that has sent nothing yet.
func (x *Index) NewView(a *Area) *View {
	return &View{index: x, area: a, held: map[string]sent{}}
}

// Len is the number of vehicles that were inside at the last update.
func (v *View) Len() int { return len(v.held) }

// heldBytes and departedBytes are about what a vehicle in the view, and one that
// has left it, take.
const (
	heldBytes     = 100
	agedBytes     = 100
	departedBytes = 24
)

// Bytes is about how much memory the view takes, with its area.
func (v *View) Bytes() int64 {
	return v.area.Bytes() + int64(len(v.held)*heldBytes+len(v.ages.heap)*agedBytes+cap(v.departed)*departedBytes)
}

// Reset has the view forget what it has sent, as if it were new; only the
// numbers of its updates go on.
func (v *View) Reset() {
	v.held, v.departed, v.ages = map[string]sent{}, nil, ages{}
	v.forgotten = v.number + 1
}

// Number is that of the last update, 0 before the first.
func (v *View) Number() uint32 { return v.number }

// Rescan looks at the whole area. It returns what has changed since the last
// update: vehicles that entered or changed, by id, and the ids of those that
// left, in order. The filter must be the same each time but for its
// MinFixTimeMS and Skew.
func (v *View) Rescan(f Filter) (changed []Vehicle, left []string) {
	v.number++
	v.aging = f.MinFixTimeMS > 0
	x := v.index
	r, version := x.pin()
	var filter compiledFilter
	filter.compile(f, &r.scratch, x.attrs)
	x.eachWithin(r, version, v.area, &filter, func(number uint32) {
		s := x.states.at(number)
		id := x.vehicles.at(s.vehicle).id()
		if last, ok := v.held[id]; ok && last.born == s.born {
			v.held[id] = sent{s.born, last.at, v.number}
			return
		}
		changed = v.include(s, changed)
	})
	r.unpin()
	for id, t := range v.held {
		if t.seen != v.number {
			left = append(left, id)
		}
	}
	slices.Sort(left)
	v.depart(left)
	slices.SortFunc(changed, byID)
	return changed, left
}

func byID(a, b Vehicle) int { return strings.Compare(a.ID, b.ID) }

// Touch looks at some vehicles only, and at those that grew too old. If all
// that changed since the last update are among them, it returns what Rescan
// would, but that each vehicle is in the state of a moment of its own. Its cost
// is that of the vehicles it looks at. It reorders ids.
func (v *View) Touch(ids []string, f Filter) (changed []Vehicle, left []string) {
	v.number++
	x := v.index
	r, _ := x.pin()
	defer r.unpin()
	var filter compiledFilter
	filter.compile(f, &r.scratch, x.attrs)
	aged := v.ages.pop(f.MinFixTimeMS + f.Skew.MostMS)
	ids = append(ids, aged...)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		s := x.newest(id)
		last, held := v.held[id]
		inside := s != nil && s.has&hasPosition != 0 && x.passesState(&filter, &r.scratch, s) &&
			v.area.shape.holds(geo.Unit(s.latDeg, s.lonDeg), s)
		switch {
		case inside && (!held || last.born != s.born):
			changed = v.include(s, changed)
		case !inside && held:
			left = append(left, id)
		}
	}
	v.depart(left)
	for _, id := range aged {
		if _, held := v.held[id]; !held {
			continue
		}
		var fixTimeMS int64 // of one that was removed meanwhile: it leaves next time
		if s := x.newest(id); s != nil {
			fixTimeMS = s.fixTimeMS()
		}
		v.ages.add(fixTimeMS, id)
	}
	return changed, left
}

// Resume returns what has changed since an earlier update of that number, and
// may name vehicles that left after they entered since. It is false, and reports
// nothing, when the view does not remember.
func (v *View) Resume(from uint32, f Filter) (changed []Vehicle, left []string, ok bool) {
	if from == 0 || from > v.number || from < v.forgotten {
		return nil, nil, false
	}
	v.Rescan(f)
	r, _ := v.index.pin()
	defer r.unpin()
	for id, t := range v.held {
		if t.at <= from {
			continue
		}
		// One that was removed since is reported to have left next time.
		if s := v.index.newest(id); s != nil {
			changed = append(changed, Vehicle{})
			v.index.read(s, &changed[len(changed)-1])
		}
	}
	for _, d := range v.departed {
		if _, held := v.held[d.id]; d.at > from && !held {
			left = append(left, d.id)
		}
	}
	slices.SortFunc(changed, byID)
	slices.Sort(left)
	return changed, slices.Compact(left), true
}

// include notes that a vehicle is sent in this update and appends its state.
func (v *View) include(s *state, to []Vehicle) []Vehicle {
	id := v.index.vehicles.at(s.vehicle).id()
	v.held[id] = sent{s.born, v.number, v.number}
	if v.aging {
		v.ages.add(s.fixTimeMS(), id)
	}
	to = append(to, Vehicle{})
	v.index.read(s, &to[len(to)-1])
	return to
}

// depart notes who has left in this update.
func (v *View) depart(left []string) {
	for _, id := range left {
		delete(v.held, id)
		v.departed = append(v.departed, departure{id, v.number})
	}
	if n := len(v.departed) - max(minDeparted, len(v.held)); n > len(v.departed)/2 {
		v.forgotten = v.departed[n-1].at
		v.departed = slices.Clone(v.departed[n:])
	}
}

// newest returns a vehicle's newest state, or nil. The caller has pinned.
func (x *Index) newest(id string) *state {
	number, _, ok := x.ids.find(id, &x.vehicles)
	if !ok {
		return nil
	}
	if current := x.vehicles.at(number).current.Load(); current != 0 {
		return x.states.at(current - 1)
	}
	return nil
}

// ages is a heap of vehicles by when the newest fix was taken. It may hold
// that a vehicle is older than it is, never that it is younger.
type ages struct {
	heap   ageHeap
	queued map[string]int64 // the entry that counts
}

func (a *ages) add(fixTimeMS int64, id string) {
	if ms, there := a.queued[id]; there && ms <= fixTimeMS {
		return
	}
	if a.queued == nil {
		a.queued = map[string]int64{}
	}
	a.queued[id] = fixTimeMS
	heap.Push(&a.heap, age{fixTimeMS, id})
}

// pop takes out those whose fix is older.
func (a *ages) pop(belowMS int64) (ids []string) {
	for len(a.heap) > 0 && a.heap[0].fixTimeMS < belowMS {
		one := heap.Pop(&a.heap).(age)
		if ms, there := a.queued[one.id]; there && ms == one.fixTimeMS {
			delete(a.queued, one.id)
			ids = append(ids, one.id)
		}
	}
	return ids
}

type age struct {
	fixTimeMS int64
	id        string
}

// ageHeap implements heap.Interface.
type ageHeap []age

func (h ageHeap) Len() int           { return len(h) }
func (h ageHeap) Less(i, j int) bool { return h[i].fixTimeMS < h[j].fixTimeMS }
func (h ageHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ageHeap) Push(x any)        { *h = append(*h, x.(age)) }
func (h *ageHeap) Pop() any {
	last := len(*h) - 1
	out := (*h)[last]
	(*h)[last] = age{}
	*h = (*h)[:last]
	return out
}
