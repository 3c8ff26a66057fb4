package nearest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// The centre of the city and the length of a degree there.
const (
	centreLatDeg = 48.2085
	centreLonDeg = 16.3730
	speedMPS     = 10
)

var (
	metresPerLatDeg = 6371008.8 * math.Pi / 180
	metresPerLonDeg = metresPerLatDeg * math.Cos(centreLatDeg*math.Pi/180)
)

// layout is how a fleet is spread over the city and where it is searched.
// Shares are of the city's side.
type layout struct {
	name string
	// core is the side of the square in the middle that holds coreShare of the
	// vehicles; the others are anywhere.
	core, coreShare float64
	// searched is the side of the square in the middle that is searched from.
	searched float64
}

var allLayouts = []layout{
	{name: "uniform", core: 1, coreShare: 1, searched: 1},
	// A tenth of the side is a hundredth of the area.
	{name: "downtown", core: 0.1, coreShare: 0.8, searched: 0.1},
	// All vehicles stand on one coordinate, which is searched from nearby.
	{name: "onespot", core: 0, coreShare: 1, searched: 0.02},
}

// vehicle drives to and fro inside its square, in metres east and north of the
// city's centre, or stands.
type vehicle struct {
	id                           string
	session                      uint64
	sequence                     int64
	lastMS                       int64
	eastM, northM                float64
	eastMPS, northMPS            float64
	reachM                       float64 // how far it goes from the centre; 0: it stands
	availability                 starlingv1.Availability
	seats                        int32
	latDeg, lonDeg               float64
	headingDeg, reportedSpeedMPS float32
}

// newFleet makes a fleet; the same for the same arguments.
func newFleet(l layout, n int, sideM float64, run uint64) []vehicle {
	rng := rand.New(rand.NewPCG(1, 2))
	fleet := make([]vehicle, n)
	for i := range fleet {
		v := &fleet[i]
		v.id = fmt.Sprintf("van-%07d", i)
		v.session = run<<32 | uint64(i+1)
		v.reachM = sideM / 2
		if rng.Float64() < l.coreShare {
			v.reachM *= l.core
		}
		v.eastM, v.northM = (2*rng.Float64()-1)*v.reachM, (2*rng.Float64()-1)*v.reachM
		if v.reachM > 0 {
			sin, cos := math.Sincos(2 * math.Pi * rng.Float64())
			v.eastMPS, v.northMPS, v.reportedSpeedMPS = speedMPS*sin, speedMPS*cos, speedMPS
		}
		// One in four is free and one in five of these has eight seats, so
		// the filter lets one in twenty pass.
		v.availability = []starlingv1.Availability{offline, free, busy, busy}[rng.IntN(4)]
		v.seats = []int32{2, 4, 4, 6, 8}[rng.IntN(5)]
		v.locate()
	}
	return fleet
}

const (
	offline = starlingv1.Availability_AVAILABILITY_OFFLINE
	free    = starlingv1.Availability_AVAILABILITY_FREE
	busy    = starlingv1.Availability_AVAILABILITY_BUSY
)

// drive moves a vehicle on to a time.
func (v *vehicle) drive(nowMS int64) {
	nowMS = max(nowMS, v.lastMS+1)
	if v.lastMS > 0 && v.reachM > 0 {
		seconds := float64(nowMS-v.lastMS) / 1000
		v.eastM, v.eastMPS = bounce(v.eastM+v.eastMPS*seconds, v.eastMPS, v.reachM)
		v.northM, v.northMPS = bounce(v.northM+v.northMPS*seconds, v.northMPS, v.reachM)
		v.locate()
	}
	v.lastMS = nowMS
	v.sequence++
}

// bounce turns a vehicle back at the edge of its square.
func bounce(at, speed, reach float64) (float64, float64) {
	if at > reach && speed > 0 || at < -reach && speed < 0 {
		return min(reach, max(-reach, at)), -speed
	}
	return at, speed
}

// place sets the coordinates.
func (v *vehicle) locate() {
	v.latDeg, v.lonDeg = degrees(v.eastM, v.northM)
	if v.reachM > 0 {
		v.headingDeg = float32(math.Mod(math.Atan2(v.eastMPS, v.northMPS)*180/math.Pi+360, 360))
		if v.headingDeg >= 360 {
			v.headingDeg = 0 // rounded up
		}
	}
}

func degrees(eastM, northM float64) (latDeg, lonDeg float64) {
	return centreLatDeg + northM/metresPerLatDeg, centreLonDeg + eastM/metresPerLonDeg
}

// query is one search.
type query struct {
	latDeg, lonDeg float64
	filtered       bool
}

// queries draws where one connection searches.
type queries struct {
	rng      *rand.Rand
	reachM   float64
	filtered bool
}

func newQueries(l layout, sideM float64, filtered bool, seed uint64) *queries {
	return &queries{rng: rand.New(rand.NewPCG(seed, 3)), reachM: sideM / 2 * l.searched, filtered: filtered}
}

func (q *queries) next() query {
	lat, lon := degrees((2*q.rng.Float64()-1)*q.reachM, (2*q.rng.Float64()-1)*q.reachM)
	return query{lat, lon, q.filtered}
}
