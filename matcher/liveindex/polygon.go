package liveindex

import (
	"fmt"
	"math"

	"github.com/starling-fleet/starling/internal/geo"
)

// polygon is judged in the gnomonic projection from its centre, in which great
// circles are straight lines.
type polygon struct {
	cap         geo.Cap
	east, north geo.Vec // axes of the plane
	edges       edgeTree
}

// maxPolygonRadiusDeg is how large a polygon may be: the projection ends at 90.
const maxPolygonRadiusDeg = 89.9

// NewPolygon returns the inside of a polygon whose edges are great circles, by
// the even-odd rule. It must fit into a circle of maxPolygonRadiusDeg.
func NewPolygon(vertices []geo.Vec) (*Area, error) {
	if len(vertices) < 3 {
		return nil, fmt.Errorf("%d vertices: must be at least 3", len(vertices))
	}
	p := &polygon{}
	// The mean of the vertices will not do: it lies where they are dense.
	p.cap.Centre = geo.SmallestCap(vertices).Centre
	p.east, p.north = geo.Plane(p.cap.Centre)
	x, y := make([]float64, len(vertices)), make([]float64, len(vertices))
	for i, v := range vertices {
		if v.Dot(p.cap.Centre) < math.Cos(maxPolygonRadiusDeg*math.Pi/180) {
			return nil, fmt.Errorf("vertices: must fit into a circle of %v degrees, just less than a hemisphere", maxPolygonRadiusDeg)
		}
		x[i], y[i] = p.project(v)
		// A circle smaller than a hemisphere holds the great circles between
		// places in it, hence all of the polygon.
		p.cap.Chord2 = max(p.cap.Chord2, geo.Chord2(p.cap.Centre, v)*(1+1e-9))
	}
	p.edges = newEdgeTree(x, y)
	return &Area{p}, nil
}

func (p *polygon) project(v geo.Vec) (x, y float64) {
	d := v.Dot(p.cap.Centre)
	return v.Dot(p.east) / d, v.Dot(p.north) / d
}

func (p *polygon) bytes() int { return 256 + p.edges.bytes() }

func (p *polygon) mayHold(lo, hi geo.Vec) bool { return p.cap.MayHold(lo, hi) }

func (p *polygon) sure(at geo.Vec) (inside, known bool) { return p.holds(at, nil), true }

func (p *polygon) holds(at geo.Vec, _ *state) bool {
	if geo.Chord2(p.cap.Centre, at) > p.cap.Chord2 {
		return false
	}
	return p.edges.holds(p.project(at))
}

const (
	// edgeLeaf is how few edges a part of the plane may have that is not divided.
	edgeLeaf = 8
	// edgeLevels bounds how often parts are divided.
	edgeLevels = 24
	// edgeCopies bounds, for each edge, in how many parts it may stand: whoever
	// draws the polygon decides how badly its edges divide.
	edgeCopies = 64
	// edgeSlack is more than rounding can move a crossing, in a plane that
	// reaches no further than tan(maxPolygonRadiusDeg), which is 573.
	edgeSlack = 1e-9
)

// edgeTree answers whether a point is inside a polygon, by the even-odd rule: it
// counts the edges that a ray towards the east crosses (M. Shimrat, "Algorithm
// 112: position of point relative to polygon", 1962). The plane is divided into
// quarters again and again, and each part keeps only the edges that some rays
// from it cross and others do not.
type edgeTree struct {
	x, y   []float64 // of the vertices
	bounds rect
	parts  []edgePart
	near   []int32 // edges of all leaves
}

// edgePart is a part of the plane.
type edgePart struct {
	// first is the place of its four quarters in parts, or of its edges in near.
	first int32
	// edges is how many it has, or divided.
	edges int32
	// odd: every ray from the part crosses an odd number of the edges that it
	// does not keep.
	odd bool
}

const divided = -1

type rect struct{ west, south, east, north float64 }

// quarter returns the i-th quarter: bit 0 is east, bit 1 north.
func (r rect) quarter(i int) rect {
	x, y := r.middle()
	if i&1 == 0 {
		r.east = x
	} else {
		r.west = x
	}
	if i&2 == 0 {
		r.north = y
	} else {
		r.south = y
	}
	return r
}

func (r rect) middle() (x, y float64) { return (r.west + r.east) / 2, (r.south + r.north) / 2 }

func newEdgeTree(x, y []float64) edgeTree {
	t := edgeTree{x: x, y: y, bounds: rect{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)}}
	all := make([]int32, len(x))
	for i := range x {
		all[i] = int32(i)
		t.bounds.west, t.bounds.east = min(t.bounds.west, x[i]), max(t.bounds.east, x[i])
		t.bounds.south, t.bounds.north = min(t.bounds.south, y[i]), max(t.bounds.north, y[i])
	}
	type undivided struct {
		part  int
		rect  rect
		level int
		edges []int32
	}
	t.parts = make([]edgePart, 4) // the first quarters of any part are at a multiple of four
	copies := edgeCopies * len(x)
	held := make([]int32, 0, 16*len(x)) // what all parts in the queue have
	// Breadth first, so that what is divided before the copies run out is divided
	// evenly.
	for queue := []undivided{{0, t.bounds, 0, all}}; len(queue) > 0; queue = queue[1:] {
		u := queue[0]
		if len(u.edges) <= edgeLeaf || u.level == edgeLevels || copies < 4*len(u.edges) {
			p := &t.parts[u.part]
			p.first, p.edges = int32(len(t.near)), int32(len(u.edges))
			t.near = append(t.near, u.edges...)
			continue
		}
		first := len(t.parts)
		odd := t.parts[u.part].odd
		t.parts[u.part].first, t.parts[u.part].edges = int32(first), divided
		for i := range 4 {
			q := undivided{first + i, u.rect.quarter(i), u.level + 1, nil}
			crossed, from := odd, len(held)
			for _, e := range u.edges {
				switch t.crossing(e, q.rect) {
				case always:
					crossed = !crossed
				case sometimes:
					held = append(held, e)
				}
			}
			q.edges = held[from:]
			copies -= len(q.edges)
			t.parts = append(t.parts, edgePart{odd: crossed})
			queue = append(queue, q)
		}
	}
	return t
}

const (
	never = iota
	sometimes
	always
)

// crossing is which rays from a part cross an edge.
func (t *edgeTree) crossing(e int32, r rect) int {
	i, j := t.ends(e)
	low, high := min(t.y[i], t.y[j]), max(t.y[i], t.y[j])
	south, north := r.south-edgeSlack, r.north+edgeSlack
	west, east := r.west-edgeSlack, r.east+edgeSlack
	switch {
	case high <= south, low > north, max(t.x[i], t.x[j]) < west:
		return never
	case low > south, high <= north:
		return sometimes
	}
	// The edge goes on above and below: rays cross it if they begin west of it.
	at := func(y float64) float64 { return (t.x[j]-t.x[i])*(y-t.y[i])/(t.y[j]-t.y[i]) + t.x[i] }
	a, b := at(south), at(north)
	switch {
	case max(a, b) < west:
		return never
	case min(a, b) > east:
		return always
	}
	return sometimes
}

// ends are the vertices of an edge.
func (t *edgeTree) ends(e int32) (i, j int) {
	if e == 0 {
		return 0, len(t.x) - 1
	}
	return int(e), int(e) - 1
}

func (t *edgeTree) bytes() int {
	return 8*(cap(t.x)+cap(t.y)) + 12*cap(t.parts) + 4*cap(t.near)
}

func (t *edgeTree) holds(x, y float64) bool {
	west, south, east, north := t.bounds.west, t.bounds.south, t.bounds.east, t.bounds.north
	if x < west || x > east || y < south || y > north {
		return false
	}
	p := &t.parts[0]
	for p.edges == divided {
		// As rect.quarter divides.
		next := p.first
		if midX := (west + east) / 2; x >= midX {
			west = midX
			next |= 1
		} else {
			east = midX
		}
		if midY := (south + north) / 2; y >= midY {
			south = midY
			next |= 2
		} else {
			north = midY
		}
		p = &t.parts[next]
	}
	inside := p.odd
	for _, e := range t.near[p.first : p.first+p.edges] {
		i, j := t.ends(e)
		if (t.y[i] > y) != (t.y[j] > y) && x < (t.x[j]-t.x[i])*(y-t.y[i])/(t.y[j]-t.y[i])+t.x[i] {
			inside = !inside
		}
	}
	return inside
}
