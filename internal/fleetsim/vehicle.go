package fleetsim

import (
	"math"
	"math/rand/v2"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// State is where a vehicle truly is.
type State struct {
	LatDeg, LonDeg float64
	SpeedMPS       float64
	HeadingDeg     float64
	// Availability is what the driver does; the phone reports BUSY for RESERVED
	// and ON_RIDE.
	Availability starlingv1.Availability
	// Tunnel is true where there is no reception.
	Tunnel bool
}

// Acceleration and braking of a calm driver, metres per second squared.
const (
	accelMPS2 = 1.5
	brakeMPS2 = 2.0
)

// Short names for what a driver does.
const (
	offline  = starlingv1.Availability_AVAILABILITY_OFFLINE
	free     = starlingv1.Availability_AVAILABILITY_FREE
	reserved = starlingv1.Availability_AVAILABILITY_RESERVED
	onRide   = starlingv1.Availability_AVAILABILITY_ON_RIDE
	busy     = starlingv1.Availability_AVAILABILITY_BUSY
)

// reportedAs is what the driver's phone reports of what the driver does: a phone
// may not report that a ride reserved the vehicle or is under way.
func reportedAs(doing starlingv1.Availability) starlingv1.Availability {
	if doing == reserved || doing == onRide {
		return busy
	}
	return doing
}

// driver moves one vehicle over the grid. Times are seconds since the start.
type driver struct {
	city *city
	rng  *rand.Rand

	from, to node    // the street it is on
	alongM   float64 // driven of it
	speedMPS float64
	goal     node
	driving  bool
	standTil float64 // when standing: until when
	doing    starlingv1.Availability
	off      float64 // share of idle drivers that go off
	errand   *Errand // nil for none
}

func newDriver(c *city, rng *rand.Rand, offShare float64) *driver {
	start := c.ranks[rng.IntN(len(c.ranks))]
	d := &driver{city: c, rng: rng, from: start, goal: start, doing: free, off: offShare}
	if rng.IntN(3) > 0 {
		d.from = c.randomNode(rng)
	}
	d.to = d.from
	d.to.i++
	if d.from.i >= c.half {
		d.to.i = d.from.i - 1
	}
	d.standTil = rng.Float64() * 60
	return d
}

// state is the vehicle's true state.
func (d *driver) state() State {
	x := (float64(d.from.i) + float64(d.to.i-d.from.i)*d.alongM/blockM) * blockM
	y := (float64(d.from.j) + float64(d.to.j-d.from.j)*d.alongM/blockM) * blockM
	lat, lon := d.city.position(x, y)
	return State{
		LatDeg: lat, LonDeg: lon, SpeedMPS: d.speedMPS, HeadingDeg: d.city.headingDeg(d.from, d.to),
		Availability: d.doing, Tunnel: d.city.tunnels[edge(d.from, d.to)],
	}
}

// step moves the vehicle from t-dt to t.
func (d *driver) step(t, dt float64) {
	if !d.driving {
		d.speedMPS = 0
		if t >= d.standTil {
			d.decide()
		}
		return
	}
	arriving := d.to == d.goal
	left := blockM - d.alongM
	want := d.city.speedLimit(d.from, d.to)
	switch {
	case arriving, !d.city.green(d.to, d.to.j-d.from.j, t):
		want = min(want, brakingSpeed(0, max(0, left-1)))
	case d.next() != straight(d.from, d.to):
		want = min(want, brakingSpeed(turnMPS, left))
	}
	if want > d.speedMPS {
		d.speedMPS = min(want, d.speedMPS+accelMPS2*dt)
	} else {
		// Brakes hold a little more than planned, so that a light that has
		// just turned red is still obeyed or run at speed, never jumped back.
		d.speedMPS = max(want, d.speedMPS-2*brakeMPS2*dt)
	}
	d.alongM += d.speedMPS * dt
	if arriving && left < 2 {
		d.arrive(t)
		return
	}
	if d.alongM >= blockM {
		next := d.next()
		d.from, d.to, d.alongM = d.to, next, d.alongM-blockM
	}
}

// brakingSpeed is how fast one may be to have slowed down to v after leftM.
func brakingSpeed(v, leftM float64) float64 { return math.Sqrt(v*v + 2*brakeMPS2*leftM) }

func straight(from, to node) node { return node{2*to.i - from.i, 2*to.j - from.j} }

// next is the crossing after d.to on the way to the goal: straight on while that
// leads there, without turning round.
func (d *driver) next() node {
	n := d.to
	on := straight(d.from, n)
	dist := func(a node) int { return abs(a.i-d.goal.i) + abs(a.j-d.goal.j) }
	best, bestDist := on, dist(on)
	if abs(on.i) > d.city.half || abs(on.j) > d.city.half {
		bestDist = math.MaxInt
	} else if bestDist > dist(n) {
		bestDist++ // leads away from the goal: rather turn
	}
	for _, m := range [4]node{{n.i + 1, n.j}, {n.i - 1, n.j}, {n.i, n.j + 1}, {n.i, n.j - 1}} {
		if m == d.from || abs(m.i) > d.city.half || abs(m.j) > d.city.half {
			continue
		}
		if dist(m) < bestDist {
			best, bestDist = m, dist(m)
		}
	}
	return best
}

// drive sets out for a goal that is not where the vehicle is.
func (d *driver) drive(goal node) {
	if goal == d.to || goal == d.from {
		goal.i += 2
		if goal.i > d.city.half {
			goal.i -= 4
		}
	}
	d.goal, d.driving = goal, true
}

// arrive stands still for as long as what comes next takes.
func (d *driver) arrive(t float64) {
	d.speedMPS, d.driving = 0, false
	if d.errand != nil {
		d.delivered()
		return
	}
	switch d.doing {
	case reserved: // the rider gets in
		d.standTil = t + 15 + 45*d.rng.Float64()
	case onRide: // the rider pays
		d.standTil = t + 10 + 20*d.rng.Float64()
	default: // at the rank
		d.standTil = t + 20 + 120*d.rng.ExpFloat64()
	}
}

// decide what to do after standing.
func (d *driver) decide() {
	switch d.doing {
	case reserved:
		d.doing = onRide
		d.drive(d.city.randomNode(d.rng))
	case onRide:
		d.doing = free
		d.drive(d.city.nearestRank(d.to))
	case offline:
		d.doing = free
		d.drive(d.city.nearestRank(d.to))
	default:
		if d.rng.Float64() < d.off {
			d.doing = offline
			d.standTil += 120 + 300*d.rng.Float64()
			return
		}
		if d.rng.IntN(4) == 0 { // off to another rank
			d.drive(d.city.ranks[d.rng.IntN(len(d.city.ranks))])
			return
		}
		d.doing = reserved
		pickup := d.to
		pickup.i = clamp(pickup.i+d.rng.IntN(17)-8, d.city.half)
		pickup.j = clamp(pickup.j+d.rng.IntN(17)-8, d.city.half)
		d.drive(pickup)
	}
}

func clamp(x, half int) int { return max(-half, min(half, x)) }
