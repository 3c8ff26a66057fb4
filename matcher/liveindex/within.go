package liveindex

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
)

// eachWithin calls fn for every vehicle inside an area that passes a filter, as
// of the version that the caller has pinned.
func (x *Index) eachWithin(r *readerSlot, version uint64, a *Area, f Filter, fn func(*state)) {
	var filter compiledFilter
	filter.compile(f, &r.scratch, x.attrs)
	x.descend(x.root, a.shape, func(n *node) {
		for i := range n.entries {
			e := &n.entries[i]
			if atomic.LoadUint64(&e.death) <= version || !filter.passes(&r.scratch, x.attrs, e) {
				continue
			}
			if s := x.states.at(e.state); s.born <= version && a.shape.holds(e.at, s) && x.passesSkew(&filter, s) {
				fn(s)
			}
		}
	})
}

// descend calls fn for every leaf that may have something of a shape in it.
func (x *Index) descend(n *node, within shape, fn func(leaf *node)) {
	if n.children == nil {
		fn(n)
		return
	}
	for i := range n.children {
		child := n.children[i].Load()
		if child == nil {
			continue
		}
		if n.level < maxLevel {
			if lo, hi := n.childBounds(i); !within.mayHold(lo, hi) {
				continue
			}
		}
		x.descend(child, within, fn)
	}
}

// Within appends to dst the first n vehicles by id that are inside an area and
// pass a filter, and how many there are in all, as of one moment.
func (x *Index) Within(a *Area, f Filter, n int, dst []Vehicle) (found []Vehicle, total int) {
	r, version := x.pin()
	defer r.unpin()
	var inside []*state
	x.eachWithin(r, version, a, f, func(s *state) { inside = append(inside, s) })
	slices.SortFunc(inside, func(a, b *state) int {
		return strings.Compare(x.vehicles.at(a.vehicle).id(), x.vehicles.at(b.vehicle).id())
	})
	total = len(inside)
	for _, s := range inside[:min(n, total)] {
		dst = append(dst, Vehicle{})
		x.read(s, &dst[len(dst)-1])
	}
	return dst, total
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
