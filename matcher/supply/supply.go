// Package supply counts a fleet's vehicles by H3 cell, resolution and derived
// availability while they move, and which of them can be offered a ride.
//
// The counts stand in a tree of cells, a level for each resolution, in which a
// cell is there while a vehicle is in it. A vehicle counts in the ancestors of
// its published cell. When it goes from one cell to another, only the cells
// below their nearest common ancestor change; a vehicle that stays in its cell
// with the availability it had costs a comparison. A question costs what its
// answer holds, whatever the size of the fleet.
package supply

import (
	"slices"
	"sync"

	"github.com/uber/h3-go/v4"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// MaxResolution is the finest resolution that counts may be kept for.
const MaxResolution = 15

// availabilities are all values of starlingv1.Availability.
const availabilities = 6

// free is what all dispatchable vehicles are.
const free = starlingv1.Availability_AVAILABILITY_FREE

// Counts are numbers of vehicles.
type Counts struct {
	// By are the counts by derived availability.
	By [availabilities]int32
	// Dispatchable is how many of those that are free can be offered a ride.
	Dispatchable int32
}

// Total is the sum of all counts by availability.
func (c *Counts) Total() (n int32) {
	for _, k := range c.By {
		n += k
	}
	return n
}

// Choice says which vehicles count. The zero value means all.
type Choice struct {
	// Availabilities are those that count; empty means all.
	Availabilities []starlingv1.Availability
	// Dispatchable means that only vehicles which can be offered a ride count.
	Dispatchable bool
}

// Of returns the counts of the vehicles that count.
func (s *Choice) Of(c Counts) (out Counts) {
	if s.Dispatchable {
		c.By = [availabilities]int32{free: c.Dispatchable}
	}
	if len(s.Availabilities) == 0 {
		return c
	}
	for _, a := range s.Availabilities {
		out.By[a] = c.By[a]
		if a == free {
			out.Dispatchable = c.Dispatchable
		}
	}
	return out
}

// Cell is an H3 cell and the vehicles in it.
type Cell struct {
	Cell   uint64
	Counts Counts
}

// Tree is the counts of a fleet. Any number of goroutines may read while one
// writes; a reader of many cells makes the writer wait for so long.
type Tree struct {
	finest  int
	changed func(resolution int, cell uint64)

	mu    sync.RWMutex
	roots [128]*node // by base cell
	nodes int
}

// node is a cell that has vehicles.
type node struct {
	cell   uint64
	counts Counts
	kids   [7]*node
}

// New returns the counts of an empty fleet at resolutions 0 to finest. If
// changed is not nil it is called after a change for each cell whose counts are
// others now. It must not block nor call the tree.
func New(finest int, changed func(resolution int, cell uint64)) *Tree {
	return &Tree{finest: finest, changed: changed}
}

// Finest is the finest resolution.
func (t *Tree) Finest() int { return t.finest }

// Len is the number of cells, of all resolutions, that have vehicles.
func (t *Tree) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.nodes
}

// Apply takes in a change of the fleet.
func (t *Tree) Apply(c *liveindex.Change) {
	same := c.Old.Availability == c.New.Availability && c.Old.Dispatchable == c.New.Dispatchable
	if same && c.Old.Cell == c.New.Cell && t.published(c.New.Cell) {
		return // nearly always
	}
	from, to := t.place(c.From, c.Old.Cell), t.place(c.To, c.New.Cell)
	if same && from == to {
		return
	}
	// Cells above this resolution keep their counts.
	first := 0
	if same && from != 0 && to != 0 {
		for first <= t.finest && parent(from, first) == parent(to, first) {
			first++
		}
	}
	t.mu.Lock()
	t.add(from, first, &c.Old, -1)
	t.add(to, first, &c.New, 1)
	t.mu.Unlock()
	if t.changed == nil {
		return
	}
	for r := first; r <= t.finest; r++ {
		if from != 0 {
			t.changed(r, parent(from, r))
		}
		if to != 0 && (from == 0 || parent(to, r) != parent(from, r)) {
			t.changed(r, parent(to, r))
		}
	}
}

// published says whether the cell that a vehicle was published with is fine
// enough to count by.
func (t *Tree) published(cell uint64) bool { return cell != 0 && resolution(cell) >= t.finest }

// place is the finest cell that a vehicle counts in, 0 for one without a
// position: an ancestor of the published cell or, if that is too coarse, the
// cell of the position.
func (t *Tree) place(at geo.Vec, cell uint64) uint64 {
	if at == (geo.Vec{}) {
		return 0
	}
	if t.published(cell) {
		return parent(cell, t.finest)
	}
	lat, lon := at.Degrees()
	computed, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: lon}, t.finest)
	if err != nil {
		return 0 // no place on the sphere is without a cell
	}
	return uint64(computed)
}

// add counts a vehicle in or out of a cell and its ancestors down from the first
// resolution.
func (t *Tree) add(cell uint64, first int, v *liveindex.Standing, n int32) {
	if cell == 0 {
		return
	}
	at := &t.roots[base(cell)]
	for r := 0; r <= t.finest; r++ {
		if r > 0 {
			at = &(*at).kids[digit(cell, r)]
		}
		if r < first {
			continue
		}
		if *at == nil {
			*at = &node{cell: parent(cell, r)}
			t.nodes++
		}
		one := *at
		if v.Dispatchable {
			one.counts.Dispatchable += n
		}
		if one.counts.By[v.Availability] += n; one.counts.Total() == 0 {
			// The vehicle was the last here, hence in all cells below.
			t.nodes -= t.finest - r + 1
			*at = nil
			return
		}
	}
}

// At returns the counts of a cell of any of the tree's resolutions.
func (t *Tree) At(cell uint64) Counts {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.find(cell); n != nil {
		return n.counts
	}
	return Counts{}
}

// find returns the node of a cell, or nil.
func (t *Tree) find(cell uint64) *node {
	n := t.roots[base(cell)]
	for r := 1; n != nil && r <= resolution(cell); r++ {
		n = n.kids[digit(cell, r)]
	}
	return n
}

// Page appends to dst, in order, the first n cells of a resolution above a cell
// that lie in an area and have vehicles that count, with the counts of those, as
// of one moment. An empty area is the whole earth. If there may be more, next is the cell to go on after, else it is
// 0.
func (t *Tree) Page(resolution int, after uint64, within Area, choice Choice, n int, dst []Cell) (page []Cell, next uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := pager{resolution: resolution, after: after, choice: choice, room: n, cells: dst}
	if len(within) == 0 {
		for _, root := range t.roots {
			p.visit(root)
		}
	}
	for _, cell := range within {
		p.visit(t.find(cell))
	}
	if p.full {
		next = p.cells[len(p.cells)-1].Cell
	}
	return p.cells, next
}

// pager walks down the tree; at any resolution the order of H3's numbers is that
// of its base cells and digits.
type pager struct {
	resolution int
	after      uint64
	choice     Choice
	room       int
	full       bool // there is one more than there is room for
	cells      []Cell
}

func (p *pager) visit(n *node) {
	if n == nil || p.full || last(n.cell, p.resolution) <= p.after {
		return
	}
	counts := p.choice.Of(n.counts)
	if counts.Total() == 0 {
		return
	}
	if resolution(n.cell) < p.resolution {
		for _, kid := range n.kids {
			p.visit(kid)
		}
		return
	}
	if p.room == 0 {
		p.full = true
		return
	}
	p.room--
	p.cells = append(p.cells, Cell{n.cell, counts})
}

// Area is a set of cells none of which lies in another, in order.
type Area []uint64

// NewArea returns the area that cells cover together.
func NewArea(cells []uint64) Area {
	sorted := slices.Clone(cells)
	// The coarser of two cells that begin alike comes first.
	slices.SortFunc(sorted, func(a, b uint64) int {
		if x, y := parent(a, MaxResolution)&^tail(resolution(a)), parent(b, MaxResolution)&^tail(resolution(b)); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return resolution(a) - resolution(b)
	})
	var out Area
	for _, c := range sorted {
		if n := len(out); n > 0 && resolution(out[n-1]) <= resolution(c) && parent(c, resolution(out[n-1])) == out[n-1] {
			continue
		}
		out = append(out, c)
	}
	return out
}

// Holds says whether a cell lies in the area. An empty one is the whole earth.
func (a Area) Holds(cell uint64) bool {
	if len(a) == 0 {
		return true
	}
	for _, c := range a {
		if resolution(c) <= resolution(cell) && parent(cell, resolution(c)) == c {
			return true
		}
	}
	return false
}

// In an H3 index the resolution stands in four bits from bit 52 on, the base
// cell in the seven below, then three bits for each finer resolution, all ones
// where there is none.

func resolution(cell uint64) int { return int(cell>>52) & 15 }

func base(cell uint64) int { return int(cell>>45) & 127 }

// digit is a cell's at a resolution. The remainder keeps what is no cell from
// being an index out of range.
func digit(cell uint64, r int) int { return int(cell>>(3*(MaxResolution-r))) & 7 % 7 }

// tail has the bits of the digits below a resolution.
func tail(r int) uint64 { return 1<<(3*(MaxResolution-r)) - 1 }

// parent is a cell's ancestor at a resolution. At a finer one than the cell's it
// is no cell, but stands where the cell does in the order.
func parent(cell uint64, r int) uint64 { return cell&^(15<<52) | uint64(r)<<52 | tail(r) }

// last is the largest number of a cell's descendants at a resolution: every
// digit is 6.
func last(cell uint64, r int) uint64 {
	const sixes = 0o666_666_666_666_666
	own := resolution(cell)
	return cell&^(15<<52)&^tail(own) | uint64(r)<<52 | sixes&tail(own)&^tail(r) | tail(r)
}
