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
// the even-odd rule. It must fit into a circle of maxPolygonRadiusDeg. A place
// that is closer to an edge than the error of rounding may count as on either side:
// 1e-14 of a radian (64 nm) if the polygon fits into a circle of 45 degrees, and
// 1e-9 (6 mm) in the largest.
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

// holdsAll implements shape: vehicles are looked at one by one.
func (p *polygon) holdsAll(geo.Vec, geo.Vec) bool { return false }

func (p *polygon) sure(at geo.Vec) (inside, known bool) { return p.holds(at, nil), true }

func (p *polygon) holds(at geo.Vec, _ *state) bool {
	if geo.Chord2(p.cap.Centre, at) > p.cap.Chord2 {
		return false
	}
	return p.edges.holds(p.project(at))
}

const (
	// edgeLeaf is how few edges a part of the plane may have that is not divided.
	edgeLeaf = 16
	// edgeLevels bounds how often parts are divided.
	edgeLevels = 48
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
// halves again and again, each time across the direction in which its edges reach
// less far. A part keeps the edges that meet it. Of those east of it every ray
// crosses an edge whose ends are not both above or both below: for such it is
// counted which ends are above, and an end that two of them share cancels out, so
// that a part keeps only where they come from behind it.
type edgeTree struct {
	x, y   []float64 // of the vertices
	bounds rect
	parts  []edgePart
	near   []int32 // edges and ends of all leaves
}

// edgePart is a part of the plane.
type edgePart struct {
	// first is the place of its two halves in parts, or of its edges and then its
	// ends in near.
	first int32
	// edges is how many it has, or how it is divided.
	edges int32
	ends  int32
	// odd: of the ends that it does not keep an odd number is above it.
	odd bool
}

// How a part is divided.
const (
	byX = -1 // into west and east
	byY = -2 // into south and north
)

type rect struct{ west, south, east, north float64 }

// halves returns west and east, or south and north.
func (r rect) halves(by int32) (low, high rect) {
	low, high = r, r
	if by == byX {
		low.east = (r.west + r.east) / 2
		high.west = low.east
	} else {
		low.north = (r.south + r.north) / 2
		high.south = low.north
	}
	return low, high
}

// undivided is a part that may have to be divided, with its edges and ends.
type undivided struct {
	part        int32
	rect        rect
	edges, ends []int32
}

func newEdgeTree(x, y []float64) edgeTree {
	t := edgeTree{x: x, y: y, bounds: rect{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)}}
	root := undivided{edges: make([]int32, 0, len(x))}
	d := division{tree: &t, slopes: make([]float64, len(x)), above: make([]bool, len(x)), held: make([]int32, 0, 4*len(x))}
	for e := range x {
		i, j := t.ends(int32(e))
		if y[i] != y[j] { // no ray crosses a level one
			d.slopes[e] = (x[j] - x[i]) / (y[j] - y[i])
			root.edges = append(root.edges, int32(e))
		}
		t.bounds.west, t.bounds.east = min(t.bounds.west, x[e]), max(t.bounds.east, x[e])
		t.bounds.south, t.bounds.north = min(t.bounds.south, y[e]), max(t.bounds.north, y[e])
	}
	root.rect = t.bounds
	t.parts = append(make([]edgePart, 0, len(x)), edgePart{})
	t.near = make([]int32, 0, 4*len(x))
	copies := edgeCopies * len(x)
	// Level by level, so that what is divided before the copies run out is divided
	// evenly.
	level, next := []undivided{root}, []undivided(nil)
	former := []int32(nil) // what level holds
	for depth := 0; len(level) > 0; depth++ {
		for _, u := range level {
			p := &t.parts[u.part]
			kept := len(u.edges) + len(u.ends)
			if kept <= edgeLeaf || depth == edgeLevels || copies < 2*kept {
				p.first, p.edges, p.ends = int32(len(t.near)), int32(len(u.edges)), int32(len(u.ends))
				t.near = append(append(t.near, u.edges...), u.ends...)
				continue
			}
			odd := p.odd
			p.first, p.edges = int32(len(t.parts)), d.choose(&u)
			low, high := u.rect.halves(p.edges)
			for _, half := range []rect{low, high} {
				h, crossed := d.half(&u, half)
				h.part = int32(len(t.parts))
				t.parts = append(t.parts, edgePart{odd: odd != crossed})
				copies -= len(h.edges) + len(h.ends)
				next = append(next, h)
			}
		}
		level, next = next, level[:0]
		d.held, former = former[:0], d.held
	}
	return t
}

// division divides the parts of a tree that is being made.
type division struct {
	tree   *edgeTree
	slopes []float64 // by how much x grows with y on each edge
	above  []bool    // ends that are counted an odd number of times; all false in between
	held   []int32   // edges and ends of the parts of the next level
	met    []int32   // scratch
}

// at is the x of an edge, or of the line through it, at a y.
func (d *division) at(e int32, y float64) float64 {
	i, _ := d.tree.ends(e)
	return d.slopes[e]*(y-d.tree.y[i]) + d.tree.x[i]
}

// choose is how a part is divided so that the halves keep less: an edge that reaches
// across the whole part is kept by both.
func (d *division) choose(u *undivided) int32 {
	t, r := d.tree, &u.rect
	wide, high := 1/(r.east-r.west), 1/(r.north-r.south)
	across, along := float64(len(u.ends)), 0.0
	for _, e := range u.edges {
		i, j := t.ends(e)
		south, north := max(min(t.y[i], t.y[j]), r.south), min(max(t.y[i], t.y[j]), r.north)
		a, b := d.at(e, south), d.at(e, north)
		inX, inY := max(0, min(max(a, b), r.east)-max(min(a, b), r.west)), north-south
		if slope := math.Abs(d.slopes[e]); inX < inY*slope {
			inY = inX / slope
		}
		across += inX * wide
		along += inY * high
	}
	if across <= along {
		return byX
	}
	return byY
}

// half returns what a half of a part keeps, and whether of the rest that rays from
// it cross the number is odd.
func (d *division) half(u *undivided, r rect) (h undivided, odd bool) {
	t := d.tree
	d.met = d.met[:0]
	count := func(vertex int32) {
		d.above[vertex] = !d.above[vertex]
		d.met = append(d.met, vertex)
	}
	for _, v := range u.ends {
		count(v)
	}
	from := len(d.held)
	for _, e := range u.edges {
		switch i, j := t.ends(e); d.crossing(e, &r) {
		case inEast:
			count(int32(i))
			count(int32(j))
		case near:
			d.held = append(d.held, e)
		}
	}
	ends := len(d.held)
	for _, v := range d.met {
		if !d.above[v] {
			continue
		}
		d.above[v] = false
		switch {
		case t.y[v] > r.north:
			odd = !odd
		case t.y[v] > r.south:
			d.held = append(d.held, v)
		}
	}
	return undivided{rect: r, edges: d.held[from:ends:ends], ends: d.held[ends:len(d.held):len(d.held)]}, odd
}

const (
	never  = iota // crossed by no ray from a part
	inEast        // crossed by all whose y is between those of its ends
	near
)

// crossing is which rays from a part cross an edge.
func (d *division) crossing(e int32, r *rect) int {
	t := d.tree
	i, j := t.ends(e)
	low, high := min(t.y[i], t.y[j]), max(t.y[i], t.y[j])
	if high <= r.south || low > r.north {
		return never
	}
	a, b := d.at(e, max(low, r.south)), d.at(e, min(high, r.north))
	switch {
	case max(a, b) < r.west-edgeSlack:
		return never
	case min(a, b) > r.east+edgeSlack:
		return inEast
	}
	return near
}

// ends are the vertices of an edge.
func (t *edgeTree) ends(e int32) (i, j int) {
	if e == 0 {
		return 0, len(t.x) - 1
	}
	return int(e), int(e) - 1
}

func (t *edgeTree) bytes() int {
	return 8*(cap(t.x)+cap(t.y)) + 16*cap(t.parts) + 4*cap(t.near)
}

func (t *edgeTree) holds(x, y float64) bool {
	west, south, east, north := t.bounds.west, t.bounds.south, t.bounds.east, t.bounds.north
	if x < west || x > east || y < south || y > north {
		return false
	}
	p := &t.parts[0]
	for p.edges < 0 {
		// As rect.halves divides.
		next := p.first
		if p.edges == byX {
			if middle := (west + east) / 2; x >= middle {
				west = middle
				next++
			} else {
				east = middle
			}
		} else if middle := (south + north) / 2; y >= middle {
			south = middle
			next++
		} else {
			north = middle
		}
		p = &t.parts[next]
	}
	inside := p.odd
	for _, v := range t.near[p.first+p.edges : p.first+p.edges+p.ends] {
		if t.y[v] > y {
			inside = !inside
		}
	}
	for _, e := range t.near[p.first : p.first+p.edges] {
		i, j := t.ends(e)
		if (t.y[i] > y) != (t.y[j] > y) && x < (t.x[j]-t.x[i])*(y-t.y[i])/(t.y[j]-t.y[i])+t.x[i] {
			inside = !inside
		}
	}
	return inside
}
