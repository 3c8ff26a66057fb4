package ridesim

import (
	"math"
	"slices"
	"strings"
)

// cellM is the side of the squares of the index of vehicles that stand idle.
const cellM = 1000.0

// fewIdle is up to how many vehicles all are looked at instead of the squares.
const fewIdle = 200

// idle is where vehicles stand that have no ride: exact nearest by rings of
// squares. Vehicles are numbers.
type idle struct {
	cells map[[2]int32][]int32
	at    []Place // by vehicle
	all   []int32 // those that stand idle, in no set order
	place []int32 // of each vehicle in all, -1 if it is not there
	names []string
	near  []near
	// least and most bound the squares that were ever used.
	least, most [2]int32
}

// near is a vehicle and how far away it is in a straight line, in metres.
type near struct {
	vehicle   int32
	distanceM float64
}

func newIdle(names []string) *idle {
	x := &idle{cells: make(map[[2]int32][]int32), at: make([]Place, len(names)), place: make([]int32, len(names)), names: names}
	for i := range x.place {
		x.place[i] = -1
	}
	return x
}

func cellOf(p Place) [2]int32 {
	return [2]int32{int32(math.Floor(p.EastM / cellM)), int32(math.Floor(p.NorthM / cellM))}
}

func (x *idle) has(v int32) bool { return x.place[v] >= 0 }

func (x *idle) add(v int32, p Place) {
	x.at[v], x.place[v] = p, int32(len(x.all))
	x.all = append(x.all, v)
	c := cellOf(p)
	x.cells[c] = append(x.cells[c], v)
	for i := range c {
		x.least[i], x.most[i] = min(x.least[i], c[i]), max(x.most[i], c[i])
	}
}

func (x *idle) remove(v int32) {
	last := x.all[len(x.all)-1]
	x.all[x.place[v]], x.place[last] = last, x.place[v]
	x.all, x.place[v] = x.all[:len(x.all)-1], -1
	c := cellOf(x.at[v])
	x.cells[c] = slices.DeleteFunc(x.cells[c], func(o int32) bool { return o == v })
}

// nearest returns the nearest vehicles, at most so many, by distance and then by
// name. The slice is good until the next call.
func (x *idle) nearest(p Place, most int) []near {
	x.near = x.near[:0]
	if len(x.all) <= fewIdle {
		for _, v := range x.all {
			x.offer(near{v, p.distance(x.at[v])}, most)
		}
		return x.near
	}
	centre := cellOf(p)
	for ring := int32(0); x.inside(centre, ring); ring++ {
		// Whatever stands in this ring is at least so far away.
		if bound := float64(ring-1) * cellM; len(x.near) == most && x.near[most-1].distanceM < bound {
			break
		}
		x.ring(centre, ring, func(c [2]int32) {
			for _, v := range x.cells[c] {
				x.offer(near{v, p.distance(x.at[v])}, most)
			}
		})
	}
	return x.near
}

// inside returns whether a ring still meets squares that were ever used.
func (x *idle) inside(c [2]int32, ring int32) bool {
	for i := range c {
		if c[i]-ring >= x.least[i] || c[i]+ring <= x.most[i] {
			return true
		}
	}
	return ring == 0
}

func (x *idle) ring(c [2]int32, ring int32, visit func([2]int32)) {
	for i := c[0] - ring; i <= c[0]+ring; i++ {
		step := max(1, 2*ring)
		if i == c[0]-ring || i == c[0]+ring {
			step = 1
		}
		for j := c[1] - ring; j <= c[1]+ring; j += step {
			visit([2]int32{i, j})
		}
	}
}

// offer keeps a vehicle if it is among the nearest so far.
func (x *idle) offer(n near, most int) {
	if len(x.near) == most {
		if !x.before(n, x.near[most-1]) {
			return
		}
		x.near = x.near[:most-1]
	}
	at := len(x.near)
	x.near = append(x.near, n)
	for ; at > 0 && x.before(n, x.near[at-1]); at-- {
		x.near[at] = x.near[at-1]
	}
	x.near[at] = n
}

func (x *idle) before(a, b near) bool {
	if a.distanceM != b.distanceM {
		return a.distanceM < b.distanceM
	}
	return strings.Compare(x.names[a.vehicle], x.names[b.vehicle]) < 0
}
