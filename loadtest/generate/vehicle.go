package generate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// vehicle drives straight on and turns back at the edge of its area.
type vehicle struct {
	id           string
	session      uint64
	sequence     int64
	deviceTimeMS int64
	latDeg       float64
	lonDeg       float64
	// Degrees of one second of driving.
	stepLatDeg float64
	stepLonDeg float64
	headingDeg float32
	leftS      int // seconds until it turns back
	legS       int
	noise      uint64
	watched    bool
}

const (
	speedMPS        = 10
	metresPerDegree = 6371008.8 * math.Pi / 180
	noiseDeg        = 2 / metresPerDegree // up to two metres either way
)

func newVehicle(o *Options, rng *rand.Rand, now time.Time, index int) *vehicle {
	heading := math.Floor(360 * rng.Float64())
	sin, cos := math.Sincos(heading * math.Pi / 180)
	perLon := metresPerDegree * math.Cos(o.CentreLatDeg*math.Pi/180)
	away, angle := o.RadiusM*math.Sqrt(rng.Float64()), 2*math.Pi*rng.Float64()
	v := &vehicle{
		id: fmt.Sprintf("%s%06d", o.VehiclePrefix, index),
		// A session belongs to one run.
		session:      max(1, rng.Uint64()^uint64(now.UnixNano())),
		latDeg:       o.CentreLatDeg + away*math.Sin(angle)/metresPerDegree,
		lonDeg:       math.Remainder(o.CentreLonDeg+away*math.Cos(angle)/perLon, 360),
		stepLatDeg:   speedMPS * cos / metresPerDegree,
		stepLonDeg:   speedMPS * sin / perLon,
		headingDeg:   float32(heading),
		legS:         60 + rng.IntN(600),
		noise:        rng.Uint64() | 1,
		deviceTimeMS: now.Add(-o.Backdate).UnixMilli(),
	}
	v.leftS = v.legS
	if o.DeviceInterval == 0 {
		v.deviceTimeMS = now.UnixMilli() - 1000
	}
	return v
}

// fill makes the vehicle's next report.
func (v *vehicle) fill(o *Options, r *wire.Report, now time.Time) {
	v.sequence++
	r.VehicleID, r.SessionID, r.Sequence = v.id, v.session, v.sequence
	if o.Free {
		r.Availability = starlingv1.Availability_AVAILABILITY_FREE
	}
	stepMS := o.DeviceInterval.Milliseconds()
	if stepMS == 0 {
		stepMS = max(1, (now.UnixMilli()-v.deviceTimeMS)/int64(len(r.Fixes)))
	}
	for i := range r.Fixes {
		v.deviceTimeMS += stepMS
		v.move(float64(stepMS) / 1000)
		r.Fixes[i] = wire.Fix{
			DeviceTimeMS: v.deviceTimeMS,
			LatDeg:       v.latDeg + noiseDeg*v.draw(), LonDeg: v.lonDeg + noiseDeg*v.draw(),
			AccuracyM: 5, SpeedMPS: speedMPS, HeadingDeg: v.headingDeg,
			Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
		}
	}
}

func (v *vehicle) move(seconds float64) {
	v.latDeg += v.stepLatDeg * seconds
	v.lonDeg += v.stepLonDeg * seconds
	if v.lonDeg > 180 || v.lonDeg < -180 {
		v.lonDeg = math.Remainder(v.lonDeg, 360)
	}
	if v.leftS--; v.leftS == 0 {
		v.leftS = v.legS
		v.stepLatDeg, v.stepLonDeg = -v.stepLatDeg, -v.stepLonDeg
		v.headingDeg += 180
		if v.headingDeg >= 360 {
			v.headingDeg -= 360
		}
	}
}

// draw is a cheap random number from -1 to 1 (xorshift, G. Marsaglia 2003).
func (v *vehicle) draw() float64 {
	v.noise ^= v.noise << 13
	v.noise ^= v.noise >> 7
	v.noise ^= v.noise << 17
	return float64(int64(v.noise)) / (1 << 63)
}
