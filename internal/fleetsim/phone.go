package fleetsim

import (
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// gps is a receiver whose error wanders: a first-order Gauss-Markov process for
// what the sky and the houses do, and a little white noise.
type gps struct {
	rng      *rand.Rand
	sigmaM   float64
	eastM    float64
	northM   float64
	lastFixS float64
	lost     bool // no fix since the start or a tunnel
	settleM  float64
}

// The wandering part forgets half of itself in correlationS*ln 2 seconds.
const (
	correlationS = 45.0
	whiteM       = 0.6
	speedNoise   = 0.25 // metres per second
	standingMPS  = 0.5  // below it a phone reports no heading
)

func newGPS(rng *rand.Rand, noiseM float64) *gps {
	g := &gps{rng: rng, sigmaM: noiseM * (0.6 + 0.8*rng.Float64()), lost: true, lastFixS: -correlationS}
	g.eastM, g.northM = g.sigmaM*rng.NormFloat64(), g.sigmaM*rng.NormFloat64()
	return g
}

// fix measures a true state at time t, in seconds since the start.
func (g *gps) fix(c *city, s State, t float64, cfg *Config) *starlingv1.Fix {
	keep := math.Exp(-(t - g.lastFixS) / correlationS)
	fresh := g.sigmaM * math.Sqrt(1-keep*keep)
	g.eastM = keep*g.eastM + fresh*g.rng.NormFloat64()
	g.northM = keep*g.northM + fresh*g.rng.NormFloat64()
	g.lastFixS = t
	east, north := g.eastM+whiteM*g.rng.NormFloat64(), g.northM+whiteM*g.rng.NormFloat64()
	accuracy := g.sigmaM * math.Exp(0.25*g.rng.NormFloat64()) * 1.2

	// Draw whether or not it is used: a setting must not shift what follows.
	badFirst, jump, angle, far := g.rng.Float64() < cfg.BadFirstShare, g.rng.Float64() < cfg.JumpShare, 2*math.Pi*g.rng.Float64(), g.rng.ExpFloat64()
	honest := g.rng.IntN(2) == 0
	g.settleM *= 0.7
	if g.lost {
		g.lost, g.settleM = false, 4*g.sigmaM
	}
	off := g.settleM * 0.5
	switch {
	case badFirst && g.settleM == 4*g.sigmaM:
		off = 100 + 400*far // a cell tower's or an old position
		if honest {
			accuracy = off
		}
	case jump:
		off = 150 + 500*far
	default:
		accuracy += g.settleM
	}
	east, north = east+off*math.Cos(angle), north+off*math.Sin(angle)

	f := &starlingv1.Fix{AccuracyM: proto.Float32(round(accuracy, 10))}
	lat, lon := c.offset(s.LatDeg, s.LonDeg, east, north)
	f.Latitude, f.Longitude = math.Round(lat*1e7)/1e7, math.Round(lon*1e7)/1e7
	speed := s.SpeedMPS + speedNoise*g.rng.NormFloat64()
	turn := 2 * g.rng.NormFloat64() * (1 + 4/(1+max(0, speed)))
	if s.SpeedMPS < 0.1 {
		speed = max(0, speed-0.3) // receivers hold still when they stand
	}
	f.SpeedMps = proto.Float32(round(max(0, speed), 100))
	if speed >= standingMPS {
		f.HeadingDeg = proto.Float32(float32(math.Mod(math.Round((s.HeadingDeg+turn+720)*10)/10, 360)))
	}
	return f
}

func round(x, parts float64) float32 { return float32(math.Round(x*parts) / parts) }

// phone collects fixes into reports and sends them over a network of its own.
type phone struct {
	id       string
	rng      *rand.Rand
	gps      *gps
	session  uint64
	sequence int64
	batching bool

	// phaseS is what this vehicle's clock is ahead of the fleet's ticks, so
	// that phones do not all measure in the same instant.
	phaseS      float64
	nextFixS    float64
	nextUploadS float64
	pending     []*starlingv1.Fix
	truth       []State
	reported    starlingv1.Availability // last reported
	attributes  *starlingv1.Attributes  // reported first in a session
}

var vehicleTypes = []struct {
	name  string
	seats int32
}{{"sedan", 4}, {"sedan", 4}, {"sedan", 4}, {"van", 7}, {"estate", 4}}

func drawAttributes(rng *rand.Rand) *starlingv1.Attributes {
	kind := vehicleTypes[rng.IntN(len(vehicleTypes))]
	a := &starlingv1.Attributes{Type: kind.name, Seats: kind.seats}
	if rng.IntN(8) == 0 {
		a.Tags = append(a.Tags, "wheelchair")
	}
	if rng.IntN(3) == 0 {
		a.Tags = append(a.Tags, "electric")
	}
	return a
}
