package liveindex

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
)

// eachWithin calls fn with the number of the state of every vehicle inside an
// area that passes a filter, as of the version that the caller has pinned.
func (x *Index) eachWithin(r *readerSlot, version uint64, a *Area, filter *compiledFilter, fn func(state uint32)) {
	x.descend(x.root, a.shape, false, func(n *node, all bool) {
		for i := range n.entries {
			e := &n.entries[i]
			if atomic.LoadUint64(&e.death) <= version || !filter.passes(&r.scratch, x.attrs, e) {
				continue
			}
			known := all
			if !all {
				var inside bool
				if inside, known = a.shape.sure(e.at); known && !inside {
					continue
				}
			}
			// The state is looked at only where it has to be: it stands far away in
			// memory. The leaf's latest birth is read after the entry's death, which
			// was written after it.
			if known && filter.filter.Skew.Of == nil && atomic.LoadUint64(&n.lastBorn) <= version {
				fn(e.state)
				continue
			}
			if s := x.states.at(e.state); s.born <= version && (known || a.shape.holds(e.at, s)) && x.passesSkew(filter, s) {
				fn(e.state)
			}
		}
	})
}

// descend calls fn for every leaf that may have something of a shape in it, and
// with whether the shape certainly holds all that is in the leaf, which is known of
// the node that it begins with.
func (x *Index) descend(n *node, within shape, all bool, fn func(leaf *node, all bool)) {
	if n.children == nil {
		fn(n, all)
		return
	}
	for i := range n.children {
		child := n.children[i].Load()
		if child == nil {
			continue
		}
		held := all
		if !all && n.level < maxLevel {
			lo, hi := n.childBounds(i)
			if !within.mayHold(lo, hi) {
				continue
			}
			held = within.holdsAll(lo, hi)
		}
		x.descend(child, within, held, fn)
	}
}

// Within appends to dst the first n vehicles by id that are inside an area and
// pass a filter, and how many there are in all, as of one moment.
func (x *Index) Within(a *Area, f Filter, n int, dst []Vehicle) (found []Vehicle, total int) {
	removed := x.removed.Load()
	r, version := x.pin()
	defer r.unpin()
	var filter compiledFilter
	filter.compile(f, &r.scratch, x.attrs)
	first, ok := x.firstOfAll(r, a, &filter, n, version, removed)
	if ok {
		x.eachWithin(r, version, a, &filter, func(uint32) { total++ })
	} else {
		inside := r.scratch.inside[:0]
		x.eachWithin(r, version, a, &filter, func(s uint32) { inside = append(inside, s) })
		r.scratch.inside = inside[:0]
		total = len(inside)
		if first, ok = x.firstByID(&r.scratch, inside, n, version, removed); !ok {
			slices.SortFunc(inside, func(a, b uint32) int { return strings.Compare(x.idOf(a), x.idOf(b)) })
			first = inside[:min(n, total)]
		}
	}
	for _, s := range first {
		dst = append(dst, Vehicle{})
		x.read(x.states.at(s), &dst[len(dst)-1])
	}
	return dst, total
}

// firstOfAll returns the first n of a search by id, if they are among the first few
// of all vehicles: then the others need only be counted. It is false where they are
// not, and when a vehicle on the way has changed or one was removed since the version.
func (x *Index) firstOfAll(r *readerSlot, a *Area, filter *compiledFilter, n int, version, removed uint64) (first []uint32, ok bool) {
	if n == 0 {
		return nil, true
	}
	if n > runMax/4 {
		return nil, false
	}
	var page [runMax]uint32
	for _, number := range x.order.after("", runMax, page[:0]) {
		current := x.vehicles.at(number).current.Load()
		if current == 0 {
			return nil, false
		}
		s := x.states.at(current - 1)
		if s.born > version {
			return nil, false
		}
		if s.has&hasPosition == 0 || !x.passesState(filter, &r.scratch, s) || !a.shape.holds(geo.Unit(s.latDeg, s.lonDeg), s) {
			continue
		}
		if first = append(first, current-1); len(first) == n {
			return first, x.removed.Load() == removed
		}
	}
	return nil, false
}

func (x *Index) idOf(state uint32) string { return x.vehicles.at(x.states.at(state).vehicle).id() }

// firstByID returns the first n of some states by id, by a walk over all ids: that
// is the shorter way where many vehicles are inside. It is false where it may not
// be, and when a vehicle on the way has changed or one was removed since the
// version: the walk meets the newest states.
func (x *Index) firstByID(scratch *searchScratch, inside []uint32, n int, version, removed uint64) (first []uint32, ok bool) {
	if n >= len(inside)/4 {
		return nil, false
	}
	most := slices.Max(inside)
	is := append(scratch.bits[:0], make([]uint64, most/64+1)...)
	scratch.bits = is[:0]
	for _, s := range inside {
		is[s/64] |= 1 << (s % 64)
	}
	var page []uint32
	after := ""
	for walked := 0; walked < len(inside); walked += len(page) {
		page = x.order.after(after, runMax, page[:0])
		if len(page) == 0 {
			return nil, false
		}
		for _, number := range page {
			current := x.vehicles.at(number).current.Load()
			if current == 0 || x.states.at(current-1).born > version {
				return nil, false
			}
			if s := current - 1; s <= most && is[s/64]>>(s%64)&1 == 1 {
				if first = append(first, s); len(first) == n {
					return first, x.removed.Load() == removed
				}
			}
		}
		after = x.vehicles.at(page[len(page)-1]).id()
	}
	return nil, false
}

// Cube is a cube of the octree, by its level and place.
type Cube uint64

// CubeOf returns the cube of a level, at most maxCoverLevel, that holds a place.
func CubeOf(at geo.Vec, level int) Cube {
	s := maxLevel - level
	return cubeAt(level, grid(at.X)>>s, grid(at.Y)>>s, grid(at.Z)>>s)
}

func cubeAt(level int, ix, iy, iz uint32) Cube {
	return Cube(level)<<54 | Cube(ix)<<36 | Cube(iy)<<18 | Cube(iz)
}

// MaxCoverLevel is the finest level of a Cover, with cubes of 195 m.
const MaxCoverLevel = 16

// Cover returns cubes of one level that together hold the area, at most n of
// them, of the finest level that this allows among every second one up to
// MaxCoverLevel. If even the coarsest does not allow it, there is one cube of
// level 0, which holds everything.
func (a *Area) Cover(n int) (level int, cubes []Cube) {
	cubes = []Cube{cubeAt(0, 0, 0, 0)}
	for next := 2; next <= MaxCoverLevel; next += 2 {
		var finer []Cube
		if !a.cover(&node{}, next, n, &finer) {
			break
		}
		level, cubes = next, finer
	}
	return level, cubes
}

// cover adds the cubes of a level below n that hold something of the area, and
// is false when they are more than most.
func (a *Area) cover(n *node, level, most int, out *[]Cube) bool {
	if int(n.level) == level {
		*out = append(*out, cubeAt(level, n.ix, n.iy, n.iz))
		return len(*out) <= most
	}
	for i := range 8 {
		lo, hi := n.childBounds(i)
		if !geo.MeetsSphere(lo, hi) || !a.shape.mayHold(lo, hi) {
			continue
		}
		var child node
		child.become(n, i)
		if !a.cover(&child, level, most, out) {
			return false
		}
	}
	return true
}
