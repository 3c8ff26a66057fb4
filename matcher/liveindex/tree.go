package liveindex

import (
	"math"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
)

const (
	// maxLevel is where splitting by place ends: a cube's side is then
	// 2^(1-maxLevel) earth radii, 12 mm. What is still too many for a leaf is a
	// overflow cube and is split by id.
	maxLevel = 30
	// idLevels is how many levels of an overflow cube three bits of the id each can distinguish
	// apart: 64 characters of it.
	idLevels = 64 * 8 / 3
	// leafMax is how many live entries a leaf holds before it is split.
	leafMax = 40
	// leafMerge is how few entries eight siblings hold together when they are
	// merged. Well below leafMax, so that a border case does not flap.
	leafMerge = 14
)

// alive is the death of an entry that has not died.
const alive = math.MaxUint64

// entry is what a search looks at for every vehicle in a leaf. It is 48 bytes
// so that a scan of a leaf is a scan of few cache lines.
type entry struct {
	// death is the version of the update that replaced the entry, or alive; at
	// most the published version while the entry is free. It is read and
	// written atomically. The other fields change only while the entry is free.
	death     uint64
	at        geo.Vec
	fixTimeMS int64 // by the log's clock
	// state is the state's number; in a free entry the next free one's place,
	// plus one.
	state uint32
	// kind is what state.kind returns.
	kind uint32
}

const (
	availabilityBits = 3
	dispatchableKind = 1 << availabilityBits
	kindBits         = availabilityBits + 1 // below the number of the attributes
)

// node is a cube of the octree. A node that readers may see never changes its
// kind: a leaf that is split, grown or merged is replaced.
type node struct {
	parent   *node // the writer's
	children *[8]atomic.Pointer[node]
	entries  []entry
	// lastBorn is the latest birth among the entries, or later. It is read and
	// written atomically.
	lastBorn   uint64
	ix, iy, iz uint32 // the cube's place on the grid of its level, or of maxLevel if that is above
	level      uint8
	slot       uint8 // which of its parent's children it is
	// overflow is set in an inner node of maxLevel.
	overflow *overflow
	// What follows is the writer's, and a leaf's.
	number   uint32 // in tree.leaves
	used     uint32 // entries that are not free: live ones and dead ones not yet reclaimed
	live     uint32
	freeHead uint32 // place of the first free entry plus one, 0 if there is none
}

// overflow reports whether all vehicles in one of the smallest cubes stand on one point.
type overflow struct {
	at    geo.Vec
	mixed atomic.Bool // someone has stood elsewhere
}

// treeKey is where an entry belongs in the tree: a cell of the finest grid and,
// where many share it, the id.
type treeKey struct {
	x, y, z uint32
	id      string
}

func treeKeyOf(at geo.Vec, id string) treeKey { return treeKey{grid(at.X), grid(at.Y), grid(at.Z), id} }

// grid returns the cell of the finest level along one axis. Scaling by a power
// of two and rounding down are exact.
func grid(v float64) uint32 {
	const cells = 1 << maxLevel
	i := int64(math.Floor(v*(cells/2))) + cells/2
	return uint32(min(i, cells-1))
}

// childBounds returns two corners of the cube of an inner node's i-th eighth,
// which need not have a node. All the arithmetic is exact.
func (n *node) childBounds(i int) (lo, hi geo.Vec) {
	side := math.Float64frombits(uint64(1023-int(n.level)) << 52) // 2^(-level)
	edge := func(parent uint32, bit int) float64 { return float64(float64(parent<<1|uint32(bit&1))*side) - 1 }
	lo = geo.Vec{X: edge(n.ix, i), Y: edge(n.iy, i>>1), Z: edge(n.iz, i>>2)}
	return lo, geo.Vec{X: lo.X + side, Y: lo.Y + side, Z: lo.Z + side}
}

// holds reports whether a key lies in the node's cube. In an overflow cube it answers for
// any id, which is enough for a vehicle that was in it before.
func (n *node) holds(p treeKey) bool {
	s := maxLevel - min(n.level, maxLevel)
	return p.x>>s == n.ix && p.y>>s == n.iy && p.z>>s == n.iz
}

// childIndex returns which child of an inner node a key belongs to. The children of a
// overflow cube's nodes are in the order of their ids.
func (n *node) childIndex(p treeKey) int {
	if n.level >= maxLevel {
		return idBits(p.id, int(n.level-maxLevel))
	}
	s := maxLevel - n.level - 1
	return int(p.x>>s&1 | p.y>>s&1<<1 | p.z>>s&1<<2)
}

// idBits returns the i-th three bits of an id, from its front; behind its end
// all bits are zero.
func idBits(id string, i int) int {
	first := i * 3
	var two uint
	if k := first / 8; k < len(id) {
		two = uint(id[k]) << 8
		if k+1 < len(id) {
			two |= uint(id[k+1])
		}
	}
	return int(two >> (16 - 3 - first%8) & 7)
}

// tree is the octree. All methods are the writer's.
type tree struct {
	root   *node
	leaves []*node // by number; nil where the number is free
	free   []uint32
	states *slab[state]
	idOf   func(vehicle uint32) string
}

func newTree(states *slab[state], idOf func(uint32) string) *tree {
	return &tree{root: &node{children: new([8]atomic.Pointer[node])}, states: states, idOf: idOf}
}

// leafFor returns the leaf for a key, making one if there is none. It looks from a node on, which is best near by: a
// vehicle that leaves a cube seldom goes far.
func (t *tree) leafFor(from *node, p treeKey) *node {
	n := from
	for n != t.root && !n.holds(p) {
		n = n.parent
	}
	for n.children != nil {
		n = t.leafBelow(n, p)
	}
	return n
}

// become makes a new node the i-th child of parent, but does not link it.
func (n *node) become(parent *node, i int) {
	n.parent, n.level, n.slot = parent, parent.level+1, uint8(i)
	n.ix, n.iy, n.iz = parent.ix, parent.iy, parent.iz
	if n.level <= maxLevel {
		n.ix = parent.ix<<1 | uint32(i&1)
		n.iy = parent.iy<<1 | uint32(i>>1&1)
		n.iz = parent.iz<<1 | uint32(i>>2&1)
	}
}

// inPlaceOf returns a new node with another's place in the tree, not yet linked.
func inPlaceOf(old *node) *node {
	return &node{parent: old.parent, level: old.level, slot: old.slot, ix: old.ix, iy: old.iy, iz: old.iz}
}

// newLeaf makes an empty leaf for the i-th eighth of parent, not yet linked.
func (t *tree) newLeaf(parent *node, i, capacity int) *node {
	n := &node{}
	n.become(parent, i)
	t.number(n)
	n.resize(capacity)
	return n
}

func (t *tree) number(n *node) {
	if last := len(t.free) - 1; last >= 0 {
		n.number = t.free[last]
		t.free = t.free[:last]
		t.leaves[n.number] = n
		return
	}
	n.number = uint32(len(t.leaves))
	t.leaves = append(t.leaves, n)
}

func (t *tree) dropNumber(n *node) {
	t.leaves[n.number] = nil
	t.free = append(t.free, n.number)
}

// resize gives an unpublished leaf space for at least capacity entries, all free.
func (n *node) resize(capacity int) {
	// append rounds up to what the allocator hands out anyway.
	n.entries = append([]entry(nil), make([]entry, capacity)...)
	n.entries = n.entries[:cap(n.entries)]
	for i := range n.entries {
		n.entries[i].state = uint32(i + 2)
	}
	n.entries[len(n.entries)-1].state = 0
	n.freeHead = 1
}

// takeFree returns the place of a free entry, which the leaf must have.
func (n *node) takeFree() uint32 {
	i := n.freeHead - 1
	n.freeHead = n.entries[i].state
	n.used++
	return i
}

// copyFrom moves an entry that is in use from another leaf into one that is not
// yet published, and stores in its state where it went.
func (t *tree) copyFrom(n *node, e *entry) {
	i := n.takeFree()
	n.entries[i] = *e
	if e.death == alive {
		n.live++
	}
	s := t.states.at(e.state)
	s.leaf, s.place = n.number, i
	n.lastBorn = max(n.lastBorn, s.born)
}

// eachUsed calls fn for each entry of a leaf that is not free. Which are free
// is known from the list of free ones only, not from their being dead.
func (n *node) eachUsed(fn func(*entry)) {
	if n.used == 0 {
		return
	}
	free := make([]uint64, (len(n.entries)+63)/64)
	for i := n.freeHead; i != 0; i = n.entries[i-1].state {
		free[(i-1)/64] |= 1 << ((i - 1) % 64)
	}
	for i := range n.entries {
		if free[i/64]&(1<<(i%64)) == 0 {
			fn(&n.entries[i])
		}
	}
}

// replace links a node that was made in place of another, which stays as it is
// for the readers that hold it.
func (t *tree) replace(by *node) { by.parent.children[by.slot].Store(by) }

// spaceFor returns a leaf with a free entry for a key in the given leaf. Small
// leaves grow in small steps, which keeps memory low; large ones grow in large
// steps, which keeps copying low.
func (t *tree) spaceFor(n *node, p treeKey) *node {
	for n.freeHead == 0 {
		if t.tooFull(n) {
			n = t.leafFor(t.split(n), p)
			continue
		}
		more := max(2, int(n.used)/8)
		if n.used > 2*leafMax {
			more = int(n.used) / 4
		}
		n = t.resized(n, int(n.used)+more)
	}
	return n
}

// tooFull reports whether a leaf is better split than grown.
func (t *tree) tooFull(leaf *node) bool {
	return leaf.live >= leafMax && leaf.level < maxLevel+idLevels
}

// leafBelow returns the child of an inner node for a key, making an empty leaf
// if there is none.
func (t *tree) leafBelow(n *node, p treeKey) *node {
	i := n.childIndex(p)
	if child := n.children[i].Load(); child != nil {
		return child
	}
	child := t.newLeaf(n, i, 2)
	n.children[i].Store(child)
	return child
}

// resized replaces a leaf by one with space for capacity entries.
func (t *tree) resized(old *node, capacity int) *node {
	n := inPlaceOf(old)
	n.number = old.number
	t.leaves[n.number] = n
	n.resize(capacity)
	old.eachUsed(func(e *entry) { t.copyFrom(n, e) })
	t.replace(n)
	return n
}

// split replaces a leaf by an inner node with its entries in new leaves.
func (t *tree) split(old *node) *node {
	n := inPlaceOf(old)
	n.children = new([8]atomic.Pointer[node])
	kidOf := func(e *entry) int { return n.childIndex(treeKeyOf(e.at, t.idOf(t.states.at(e.state).vehicle))) }
	var counts [8]int
	old.eachUsed(func(e *entry) {
		counts[kidOf(e)]++
		if n.level == maxLevel {
			n.stack(e.at)
		}
	})
	for i, count := range counts {
		if count > 0 {
			n.children[i].Store(t.newLeaf(n, i, count+2))
		}
	}
	old.eachUsed(func(e *entry) { t.copyFrom(n.children[kidOf(e)].Load(), e) })
	t.dropNumber(old)
	for i := range n.children {
		if child := n.children[i].Load(); child != nil && t.tooFull(child) {
			t.split(child)
		}
	}
	t.replace(n)
	return n
}

// stack notes that a vehicle stands in an overflow cube.
func (n *node) stack(at geo.Vec) {
	switch {
	case n.overflow == nil:
		n.overflow = &overflow{at: at}
	case at != n.overflow.at:
		n.overflow.mixed.Store(true)
	}
}

// stackUnder notes that a vehicle stands in a leaf, if that is an overflow cube's.
func (t *tree) stackUnder(leaf *node, at geo.Vec) {
	if leaf.level <= maxLevel {
		return
	}
	n := leaf
	for n.level > maxLevel {
		n = n.parent
	}
	n.stack(at)
}

// freed takes back an entry that no reader can see any more, and tidies up
// where few are left.
func (t *tree) freed(n *node, place uint32) {
	n.entries[place].state = n.freeHead
	n.freeHead = place + 1
	n.used--
	switch {
	case n.used == 0:
		t.unlink(n)
	case n.used <= 4 && t.merge(n.parent):
	case int(n.used)*5 < len(n.entries)*2 && len(n.entries) > 8:
		t.resized(n, int(n.used)+2)
	}
}

// unlink removes an empty leaf and the inner nodes that it leaves without children.
func (t *tree) unlink(n *node) {
	t.dropNumber(n)
	for n != t.root {
		n.parent.children[n.slot].Store(nil)
		for i := range n.parent.children {
			if n.parent.children[i].Load() != nil {
				return
			}
		}
		n = n.parent
	}
}

// merge replaces an inner node by a leaf if its children are leaves with few
// entries, and reports whether it did.
func (t *tree) merge(n *node) bool {
	if n == t.root {
		return false
	}
	used := 0
	for i := range n.children {
		if child := n.children[i].Load(); child != nil {
			if used += int(child.used); child.children != nil || used > leafMerge {
				return false
			}
		}
	}
	leaf := inPlaceOf(n)
	t.number(leaf)
	leaf.resize(used + 2)
	for i := range n.children {
		if child := n.children[i].Load(); child != nil {
			child.eachUsed(func(e *entry) { t.copyFrom(leaf, e) })
			t.dropNumber(child)
		}
	}
	t.replace(leaf)
	t.merge(leaf.parent)
	return true
}
