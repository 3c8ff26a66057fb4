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

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// MaxResolution is the finest resolution that counts may be kept for.
const MaxResolution = h3.MaxResolution

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

// Choice is which vehicles count. The zero value means all.
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
	Cell   h3.Cell
	Counts Counts
}

// Tree is the counts of a fleet. Any number of goroutines may read while one
// writes; a reader of many cells makes the writer wait for so long.
type Tree struct {
	finest  int
	changed func(resolution int, cell h3.Cell)

	mu    sync.RWMutex
	roots [h3.BaseCells]*node // by base cell
	nodes int
}

// node is a cell that has vehicles.
type node struct {
	cell     h3.Cell
	counts   Counts
	children [7]*node
}

// New returns the counts of an empty fleet at resolutions 0 to finest. If
// changed is not nil it is called after a change for each cell whose counts are
// others now. It must not block nor call the tree.
func New(finest int, changed func(resolution int, cell h3.Cell)) *Tree {
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
	from, to := t.countedCell(c.From, c.Old.Cell), t.countedCell(c.To, c.New.Cell)
	if same && from == to {
		return
	}
	// Cells above this resolution keep their counts.
	first := 0
	if same && from != 0 && to != 0 {
		for first <= t.finest && from.Parent(first) == to.Parent(first) {
			first++
		}
	}
	t.move(from, to, first, c)
	if t.changed == nil {
		return
	}
	for r := first; r <= t.finest; r++ {
		if from != 0 {
			t.changed(r, from.Parent(r))
		}
		if to != 0 && (from == 0 || to.Parent(r) != from.Parent(r)) {
			t.changed(r, to.Parent(r))
		}
	}
}

// move counts a change in all cells of a resolution and finer ones.
func (t *Tree) move(from, to h3.Cell, first int, c *liveindex.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(from, first, &c.Old, -1)
	t.add(to, first, &c.New, 1)
}

// published reports whether the cell that a vehicle was published with is fine
// enough to count by.
func (t *Tree) published(cell h3.Cell) bool { return cell != 0 && cell.Resolution() >= t.finest }

// countedCell is the finest cell that a vehicle counts in, 0 for one without a
// position: an ancestor of the published cell or, if that is too coarse, the
// cell of the position.
func (t *Tree) countedCell(at geo.Vec, cell h3.Cell) h3.Cell {
	if at == (geo.Vec{}) {
		return 0
	}
	if t.published(cell) {
		return cell.Parent(t.finest)
	}
	lat, lon := at.Degrees()
	computed, err := h3.At(lat, lon, t.finest)
	if err != nil {
		return 0 // no place on the sphere is without a cell
	}
	return computed
}

// add counts a vehicle in or out of a cell and its ancestors down from the first
// resolution.
func (t *Tree) add(cell h3.Cell, first int, v *liveindex.Standing, n int32) {
	if cell == 0 {
		return
	}
	at := &t.roots[cell.Base()]
	for r := 0; r <= t.finest; r++ {
		if r > 0 {
			at = &(*at).children[cell.Digit(r)]
		}
		if r < first {
			continue
		}
		if *at == nil {
			*at = &node{cell: cell.Parent(r)}
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
func (t *Tree) At(cell h3.Cell) Counts {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.find(cell); n != nil {
		return n.counts
	}
	return Counts{}
}

// find returns the node of a cell, or nil.
func (t *Tree) find(cell h3.Cell) *node {
	n := t.roots[cell.Base()]
	for r := 1; n != nil && r <= cell.Resolution(); r++ {
		n = n.children[cell.Digit(r)]
	}
	return n
}

// Page appends to dst, in order, the first n cells of a resolution above a cell
// that lie in an area and have vehicles that count, with the counts of those, as
// of one moment. An empty area is the whole earth. If there may be more, next is the cell to go on after, else it is
// 0.
func (t *Tree) Page(resolution int, after h3.Cell, within Area, choice Choice, n int, dst []Cell) (page []Cell, next h3.Cell) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := pager{resolution: resolution, after: after, choice: choice, capacity: n, cells: dst}
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
	after      h3.Cell
	choice     Choice
	capacity   int
	full       bool // there is one more than fits
	cells      []Cell
}

func (p *pager) visit(n *node) {
	if n == nil || p.full || n.cell.Last(p.resolution) <= p.after {
		return
	}
	counts := p.choice.Of(n.counts)
	if counts.Total() == 0 {
		return
	}
	if n.cell.Resolution() < p.resolution {
		for _, child := range n.children {
			p.visit(child)
		}
		return
	}
	if p.capacity == 0 {
		p.full = true
		return
	}
	p.capacity--
	p.cells = append(p.cells, Cell{n.cell, counts})
}

// Area is a set of cells none of which lies in another, in order.
type Area []h3.Cell

// NewArea returns the area that cells cover together.
func NewArea(cells []h3.Cell) Area {
	sorted := slices.Clone(cells)
	slices.SortFunc(sorted, h3.Cell.Compare)
	var out Area
	for _, c := range sorted {
		if n := len(out); n > 0 && c.In(out[n-1]) {
			continue
		}
		out = append(out, c)
	}
	return out
}

// Holds returns whether a cell lies in the area. An empty one is the whole earth.
func (a Area) Holds(cell h3.Cell) bool {
	if len(a) == 0 {
		return true
	}
	for _, c := range a {
		if cell.In(c) {
			return true
		}
	}
	return false
}
