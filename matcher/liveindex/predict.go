package liveindex

import (
	"math"

	"github.com/starling-fleet/starling/internal/geo"
)

// Prediction is where a vehicle is expected to be now, if it has driven on as
// it did at its newest fix. It is what gpsfilter's Predict answers: that drives
// the state's mean on straight at constant velocity, and the published position,
// speed and heading are that mean. The index does not have the filter's state,
// but the tests hold the two to each other.
type Prediction struct {
	LatDeg, LonDeg float64
	// VarGrowthM2 is what the time since the fix adds to the variance of the
	// position along every axis, in square metres. It is a typical value of what
	// the filter's state adds, which depends on the device.
	VarGrowthM2 float64
}

// How a vehicle strays from driving on straight at constant speed: its speed is
// off by so much at the fix, and changes by white acceleration of this spectral
// density, whose effect grows with the cube of time (Y. Bar-Shalom et al.,
// "Estimation with Applications to Tracking and Navigation", 6.2.2).
const (
	speedErrorMPS     = 2.0
	accelerationM2PS3 = 2.5
)

// Ahead asks a search to rank by predicted positions.
type Ahead struct {
	// NowMS is the moment for which positions are predicted.
	NowMS int64
	// LimitMS is the longest time after a fix for which the vehicle is
	// predicted; one that was silent for longer stays where it was.
	LimitMS int64
	// Skew is added to NowMS.
	Skew Skew
}

// drive returns how many seconds a vehicle is predicted ahead, 0 if it is not.
func (x *Index) drive(a *Ahead, s *state) float64 {
	dt := a.NowMS - s.fixTimeMS()
	if a.Skew.Of != nil {
		dt += a.Skew.Of(x.vehicles.at(s.vehicle).id())
	}
	if dt <= 0 || dt > a.LimitMS || s.has&(hasSpeed|hasHeading) != hasSpeed|hasHeading || !(s.speedMPS > 0) || math.IsInf(float64(s.speedMPS), 0) {
		return 0
	}
	return float64(dt) / 1000
}

// reachM is how far a vehicle may be from where it was last seen: no
// prediction goes farther.
func (x *Index) reachM(a Ahead) float64 {
	return x.speeds.boundMPS() * float64(max(a.LimitMS, 0)) / 1000
}

// predicted returns where a vehicle that was at a place is after some seconds.
func predicted(at geo.Vec, s *state, seconds float64) geo.Vec {
	sinArc, cosArc := math.Sincos(float64(s.speedMPS) * seconds / geo.EarthRadiusM)
	sinHead, cosHead := math.Sincos(float64(s.headingDeg) * (math.Pi / 180))
	cosLat := math.Hypot(at.X, at.Y)
	if cosLat < 1e-9 {
		return at // every direction is south or north of here
	}
	east := geo.Vec{X: -at.Y / cosLat, Y: at.X / cosLat}
	north := geo.Vec{X: -at.Z * east.Y, Y: at.Z * east.X, Z: cosLat}
	along := func(here, e, n float64) float64 { return here*cosArc + (e*sinHead+n*cosHead)*sinArc }
	return geo.Vec{X: along(at.X, east.X, north.X), Y: along(at.Y, east.Y, north.Y), Z: along(at.Z, east.Z, north.Z)}
}

// predict returns a state's prediction, or false if there is none.
func (x *Index) predict(a *Ahead, s *state) (Prediction, bool) {
	dt := x.drive(a, s)
	if dt == 0 {
		return Prediction{}, false
	}
	lat, lon := predicted(geo.Unit(s.latDeg, s.lonDeg), s, dt).Degrees()
	speed := speedErrorMPS * dt
	return Prediction{lat, lon, speed*speed + accelerationM2PS3*dt*dt*dt/3}, true
}
