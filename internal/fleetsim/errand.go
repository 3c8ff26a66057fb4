package fleetsim

import "math"

// Errand sends a vehicle somewhere, as its driver's ride does. On an errand a
// vehicle takes no fares of its own, and its phone reports FREE: who has sent it
// knows what it is for. Where it arrives it stays until its next errand.
type Errand struct {
	VehicleID string
	// For is whose errand it is.
	For string
	// To is where it drives; nil lets the vehicle go its own way again,
	// unless it is on the errand of somebody else.
	To *Place
	// Arrived, if not nil, is called once, by whoever advances the fleet, when the
	// vehicle is there. It must not block. It is not called when another errand
	// comes first.
	Arrived func()
}

// Place is a point in degrees.
type Place struct{ LatDeg, LonDeg float64 }

// Send sends a vehicle on an errand; a vehicle that is not of the fleet goes
// nowhere.
func (f *Fleet) Send(e Errand) {
	for v, p := range f.phones {
		if p.id == e.VehicleID {
			f.drivers[v].send(&e)
			return
		}
	}
}

// Crossing returns the crossing nearest to a place, where vehicles can stop.
func (f *Fleet) Crossing(p Place) Place {
	n := f.city.crossing(p)
	lat, lon := f.city.position(float64(n.i)*blockM, float64(n.j)*blockM)
	return Place{lat, lon}
}

// crossing is the node nearest to a place.
func (c *city) crossing(p Place) node {
	east, north := wrapDeg(p.LonDeg-c.lon)*c.mPerLon, (p.LatDeg-c.lat)*metresPerDegree
	x, y := c.cos*east+c.sin*north, c.cos*north-c.sin*east
	return node{clamp(int(math.Round(x/blockM)), c.half), clamp(int(math.Round(y/blockM)), c.half)}
}

// send has a driver set out at once; the way begins at the next crossing.
func (d *driver) send(e *Errand) {
	if e.To == nil {
		if d.errand == nil || d.errand.For != e.For {
			return
		}
		d.errand = nil
		d.drive(d.city.nearestRank(d.to))
		return
	}
	d.errand, d.doing = e, free
	d.goal, d.driving = d.city.crossing(*e.To), true
}

// delivered is the arrival of a vehicle that is on an errand.
func (d *driver) delivered() {
	d.standTil = math.Inf(1)
	if arrived := d.errand.Arrived; arrived != nil {
		d.errand.Arrived = nil
		arrived()
	}
}
