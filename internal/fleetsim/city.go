package fleetsim

import (
	"math"
	"math/rand/v2"
)

// node is a crossing: east and north of the centre, in blocks.
type node struct{ i, j int }

// The city is a grid of streets, turned by some degrees so that no street runs
// along a meridian. Every fourth street is an arterial road; where two of them
// cross there are lights.
const (
	blockM        = 125.0
	arterialEvery = 4
	streetMPS     = 8.3
	arterialMPS   = 13.9
	turnMPS       = 4.5
	lightCycleS   = 60.0
	lightGreenS   = 27.0 // of each direction; the rest is red for all
)

type city struct {
	half     int // blocks from the centre to the edge
	sin, cos float64
	lat, lon float64 // centre, degrees
	mPerLon  float64 // metres per degree of longitude at the centre
	tunnels  map[[2]node]bool
	ranks    []node
}

// metresPerDegree is on the sphere that Starling measures on.
const metresPerDegree = 6371008.8 * math.Pi / 180

func newCity(cfg Config, rng *rand.Rand) *city {
	turn := (5 + 30*rng.Float64()) * math.Pi / 180
	c := &city{
		half: max(4, int(cfg.RadiusM/blockM)), lat: cfg.CentreLatDeg, lon: cfg.CentreLonDeg,
		mPerLon: metresPerDegree * math.Cos(cfg.CentreLatDeg*math.Pi/180),
		tunnels: map[[2]node]bool{},
	}
	c.sin, c.cos = math.Sincos(turn)
	for range cfg.Tunnels {
		// A stretch of three to five blocks of an arterial road.
		n := c.randomNode(rng)
		n.j = n.j / arterialEvery * arterialEvery
		for range 3 + rng.IntN(3) {
			next := node{n.i + 1, n.j}
			c.tunnels[edge(n, next)] = true
			n = next
		}
	}
	for range max(3, cfg.Vehicles/15) {
		c.ranks = append(c.ranks, c.randomNode(rng))
	}
	return c
}

// edge names the street between two neighbours, whichever way it is driven.
func edge(a, b node) [2]node {
	if b.i < a.i || b.j < a.j {
		a, b = b, a
	}
	return [2]node{a, b}
}

func (c *city) randomNode(rng *rand.Rand) node {
	// The sum of two draws: more happens near the centre.
	draw := func() int { return (rng.IntN(2*c.half+1)+rng.IntN(2*c.half+1))/2 - c.half }
	return node{draw(), draw()}
}

// nearestRank is by blocks driven.
func (c *city) nearestRank(n node) node {
	best, bestBlocks := c.ranks[0], math.MaxInt
	for _, r := range c.ranks {
		if blocks := abs(r.i-n.i) + abs(r.j-n.j); blocks < bestBlocks {
			best, bestBlocks = r, blocks
		}
	}
	return best
}

// speedLimit is of the street from a to its neighbour b.
func (c *city) speedLimit(a, b node) float64 {
	if a.i == b.i && a.i%arterialEvery == 0 || a.j == b.j && a.j%arterialEvery == 0 {
		return arterialMPS
	}
	return streetMPS
}

// green reports whether a vehicle that comes to n along direction (di, dj) may
// cross at time t, in seconds.
func (c *city) green(n node, dj int, t float64) bool {
	if n.i%arterialEvery != 0 || n.j%arterialEvery != 0 {
		return true
	}
	offset := float64((n.i*7+n.j*13)%60+60) + t
	phase := math.Mod(offset, lightCycleS)
	if dj != 0 {
		return phase < lightGreenS
	}
	return phase >= lightCycleS/2 && phase < lightCycleS/2+lightGreenS
}

// position returns where a point of the grid is, given in metres along its axes.
func (c *city) position(x, y float64) (lat, lon float64) {
	east, north := c.cos*x-c.sin*y, c.sin*x+c.cos*y
	return c.offset(c.lat, c.lon, east, north)
}

// offset moves a place by metres, on the plane that touches at the centre.
func (c *city) offset(lat, lon, eastM, northM float64) (float64, float64) {
	return lat + northM/metresPerDegree, wrapDeg(lon + eastM/c.mPerLon)
}

// wrapDeg brings a longitude into [-180, 180].
func wrapDeg(lon float64) float64 { return math.Remainder(lon, 360) }

// headingDeg is the direction of driving from a to b, clockwise from north.
func (c *city) headingDeg(a, b node) float64 {
	dx, dy := float64(b.i-a.i), float64(b.j-a.j)
	east, north := c.cos*dx-c.sin*dy, c.sin*dx+c.cos*dy
	return math.Mod(math.Atan2(east, north)*180/math.Pi+360, 360)
}

func abs(x int) int {
	if x < 0 {
		return -x
	}
	return x
}
