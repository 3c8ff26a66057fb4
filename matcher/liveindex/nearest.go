package liveindex

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Filter narrows a search. Its zero value lets every vehicle with a position
// pass.
type Filter struct {
	// Availabilities lets any of these derived ones pass; empty means all.
	Availabilities []starlingv1.Availability
	// Dispatchable lets only those pass that were published as dispatchable.
	Dispatchable bool
	// Types lets any of these vehicle types pass; empty means all.
	Types []string
	// MinSeats is the fewest seats that pass.
	MinSeats int32
	// Tags must all be there.
	Tags []string
	// MinFixTimeMS is the oldest newest fix that passes (Vehicle.FixTimeMS), in
	// milliseconds since the Unix epoch; 0 means any.
	MinFixTimeMS int64
	// Skew is added to MinFixTimeMS.
	Skew Skew
}

// Skew is how much later it is for some vehicles than for others: partitions of
// a log may disagree about the time. The zero value means that it is the same
// for all.
type Skew struct {
	// Of returns a vehicle's, in milliseconds, 0 to MostMS. It is called during
	// searches, by many goroutines.
	Of     func(id string) int64
	MostMS int64
}

// Query asks for the vehicles nearest to a place.
type Query struct {
	// LatDeg and LonDeg are the place in WGS84 degrees, both finite.
	LatDeg, LonDeg float64
	// MaxResults is how many vehicles are wanted; less than 1 finds none.
	MaxResults int
	// RadiusM is the largest distance in metres that counts; 0 means no bound.
	RadiusM float64
	Filter  Filter
	// Within is where vehicles count; nil means everywhere.
	Within *Area
	// Ahead, if not nil, ranks by where vehicles are expected to be now.
	Ahead *Ahead
}

// Hit is a vehicle and its great-circle distance from the place: that of its
// prediction if it has one.
type Hit struct {
	Vehicle    Vehicle
	DistanceM  float64
	Predicted  bool
	Prediction Prediction
}

// Nearest appends to dst the vehicles that the query asks for, by distance and
// then by id, all as of one moment.
func (x *Index) Nearest(q Query, dst []Hit) []Hit {
	if q.MaxResults < 1 {
		return dst
	}
	r, version := x.pin()
	defer r.unpin()
	s := search{
		index: x, version: version, searchScratch: &r.scratch,
		place: geo.Unit(q.LatDeg, q.LonDeg), want: q.MaxResults, radiusM: q.RadiusM,
	}
	if q.RadiusM <= 0 {
		s.radiusM = math.Inf(1)
	}
	if q.Ahead != nil {
		// After pin: states that it sees have noted their speeds.
		s.ahead, s.reachM = *q.Ahead, x.reachM(*q.Ahead)
	}
	s.limit = geo.Chord2Bound(s.radiusM + s.reachM)
	s.filter.compile(q.Filter, &r.scratch, x.attrs)
	if q.Within != nil {
		s.within = q.Within.shape
	}
	s.run()
	slices.SortFunc(s.best, s.compare)
	at := len(dst)
	dst = append(dst, make([]Hit, len(s.best))...)
	for i, c := range s.best {
		hit := &dst[at+i]
		x.read(x.states.at(c.state), &hit.Vehicle)
		hit.DistanceM = c.distanceM
		if q.Ahead != nil {
			hit.Prediction, hit.Predicted = x.predict(&s.ahead, x.states.at(c.state))
		}
	}
	r.scratch.clear()
	return dst
}

// candidate is a vehicle that may belong in the answer.
type candidate struct {
	distanceM float64
	state     uint32
}

// cube is a node still to be visited and the lower bound of its chord².
type cube struct {
	bound float64
	node  *node
}

// searchScratch is memory that a reader slot lends to one search after another.
type searchScratch struct {
	cubes []cube
	best  []candidate
	// inside and bits are those of Within.
	inside []uint32
	bits   []uint64
	memo   []uint32 // by number of attributes: 2*stamp, plus 1 if they pass
	stamp  uint32
}

// clear lets go of what the search pointed to.
func (s *searchScratch) clear() {
	clear(s.cubes[:cap(s.cubes)])
	s.cubes, s.best = s.cubes[:0], s.best[:0]
}

// search is one run of Nearest.
type search struct {
	*searchScratch
	index   *Index
	version uint64
	place   geo.Vec
	want    int
	radiusM float64
	limit   float64 // no chord² above this belongs in the answer
	filter  compiledFilter
	within  shape // nil means everywhere
	// ahead and reachM are zero unless positions are predicted: then a vehicle
	// may be nearer than it was seen, by at most reachM.
	ahead  Ahead
	reachM float64
	// The last distance computed and for which place: an overflow cube asks again and
	// again.
	lastAt        geo.Vec
	lastDistanceM float64
}

// run visits cubes by lower bound until the bound shows that no better vehicle
// is left; the package comment has the argument.
func (s *search) run() {
	s.lastAt = geo.Vec{X: math.NaN()}
	s.push(cube{0, s.index.root})
	for len(s.cubes) > 0 {
		c := s.pop()
		if c.bound > s.limit {
			return
		}
		switch {
		case c.node.children == nil:
			s.scan(c.node)
			continue
		case c.node.overflow != nil:
			s.walkOverflow(c.node, c.node.overflow)
			continue
		}
		for i := range c.node.children {
			child := c.node.children[i].Load()
			if child == nil {
				continue
			}
			lo, hi := c.node.childBounds(i)
			if bound := geo.BoxChord2(s.place, lo, hi); bound <= s.limit && (s.within == nil || s.within.mayHold(lo, hi)) {
				s.push(cube{bound, child})
			}
		}
	}
}

// walkOverflow looks at the leaves of an overflow cube in the order of their ids. If all
// stand on one point and are not predicted elsewhere, the first leaf with an id above the worst kept ends it:
// the others have the same distance and higher ids.
func (s *search) walkOverflow(n *node, p *overflow) (done bool) {
	if n.children == nil {
		s.scan(n)
		return len(s.best) == s.want && s.reachM == 0 && !p.mixed.Load() && s.idsBehind(n, geo.Distance(s.place, p.at), s.best[0])
	}
	for i := range n.children {
		if child := n.children[i].Load(); child != nil && s.walkOverflow(child, p) {
			return true
		}
	}
	return false
}

// idsBehind reports whether a leaf has an id that comes behind c at a distance.
// Whose id it is does not matter: one not yet born will do.
func (s *search) idsBehind(leaf *node, distanceM float64, c candidate) bool {
	for i := range leaf.entries {
		e := &leaf.entries[i]
		if atomic.LoadUint64(&e.death) > s.version {
			return s.compare(candidate{distanceM, e.state}, c) > 0
		}
	}
	return false
}

// scan looks at every entry of a leaf.
func (s *search) scan(leaf *node) {
	filter, skewed := &s.filter, s.filter.filter.Skew.Of != nil
	for i := range leaf.entries {
		e := &leaf.entries[i]
		// The death comes first: what is alive to this reader does not change
		// under it.
		if atomic.LoadUint64(&e.death) <= s.version {
			continue
		}
		if geo.Chord2(s.place, e.at) > s.limit || !filter.passesBits(e) {
			continue
		}
		if filter.attributes && !filter.pass(s.searchScratch, s.index.attrs, e.kind>>kindBits) {
			continue
		}
		// An entry's birth is asked for only where one is recent: it stands in
		// the state, far away in memory. The leaf's latest birth is read after
		// the entry's death, which was written after it.
		if atomic.LoadUint64(&leaf.lastBorn) > s.version && s.index.states.at(e.state).born > s.version {
			continue
		}
		if s.within != nil && !s.within.holds(e.at, s.index.states.at(e.state)) {
			continue
		}
		if skewed && !s.index.passesSkew(filter, s.index.states.at(e.state)) {
			continue
		}
		s.offer(e)
	}
}

// offer keeps a vehicle if it is among the best so far.
func (s *search) offer(e *entry) {
	c := candidate{s.distance(e), e.state}
	if c.distanceM > s.radiusM {
		return
	}
	switch {
	case len(s.best) < s.want:
		s.best = append(s.best, c)
		s.siftUp(len(s.best) - 1)
	case s.compare(c, s.best[0]) < 0:
		s.best[0] = c
		s.siftDown()
	default:
		return
	}
	if len(s.best) == s.want {
		s.limit = geo.Chord2Bound(min(s.best[0].distanceM, s.radiusM) + s.reachM)
	}
}

// distance returns the distance that a vehicle is ranked by.
func (s *search) distance(e *entry) float64 {
	if s.reachM > 0 {
		st := s.index.states.at(e.state)
		if seconds := s.index.drive(&s.ahead, st); seconds > 0 {
			return geo.Distance(s.place, predicted(e.at, st, seconds))
		}
	}
	if e.at != s.lastAt {
		s.lastAt, s.lastDistanceM = e.at, geo.Distance(s.place, e.at)
	}
	return s.lastDistanceM
}

// compare orders by distance and then by id.
func (s *search) compare(a, b candidate) int {
	switch {
	case a.distanceM < b.distanceM:
		return -1
	case a.distanceM > b.distanceM:
		return 1
	}
	return strings.Compare(s.id(a), s.id(b))
}

func (s *search) id(c candidate) string {
	return s.index.vehicles.at(s.index.states.at(c.state).vehicle).id()
}

// best is a heap with the worst kept candidate on top.

func (s *search) siftUp(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if s.compare(s.best[i], s.best[parent]) <= 0 {
			return
		}
		s.best[i], s.best[parent] = s.best[parent], s.best[i]
		i = parent
	}
}

func (s *search) siftDown() {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(s.best) {
			return
		}
		if child+1 < len(s.best) && s.compare(s.best[child+1], s.best[child]) > 0 {
			child++
		}
		if s.compare(s.best[i], s.best[child]) >= 0 {
			return
		}
		s.best[i], s.best[child] = s.best[child], s.best[i]
		i = child
	}
}

// cubes is a heap with the lowest bound on top.

func (s *search) push(c cube) {
	s.cubes = append(s.cubes, c)
	h := s.cubes
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].bound <= c.bound {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = c
}

func (s *search) pop() cube {
	h := s.cubes
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	s.cubes = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].bound < h[child].bound {
			child++
		}
		if last.bound <= h[child].bound {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = last
	return top
}
