// Package rideevents measures how positions of vehicles reach the subscribers of their
// rides: it starts a server of its own, binds as many vehicles to rides as
// there are subscribers, has each vehicle report once a second, and measures how
// long a position takes to its subscriber and what CPU each costs the server. It can
// do the same with Centrifugo: as many channels, a publication a second in each.
package rideevents

import (
	"math"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Options are the settings of a measurement.
type Options struct {
	// Starling is the command line of the starling binary.
	Starling []string
	// Centrifugo is the path of its binary; empty measures Starling alone.
	Centrifugo string
	// Redis is the path of redis-server, of which each server gets one; empty is none,
	// which Centrifugo can't do with.
	Redis string
	// WorkDir is where logs are put; empty means the system's temporary folder.
	WorkDir string
	// Subscribers follow a ride each, whose vehicle reports once in Period.
	Subscribers int
	Period      time.Duration
	// Connections carry the subscriptions.
	Connections int
	// Rounds measure each server so often, in turn; medians count.
	Rounds int
	// Warmup comes before Duration; what arrives in it is not counted.
	Warmup, Duration time.Duration
	// MaxP99 is how long a position may take to its subscriber, for 99 in 100, and
	// MaxCPURatio what a delivery may cost in CPU, of what it costs Centrifugo.
	MaxP99      time.Duration
	MaxCPURatio float64
	// Progress, if not nil, is called with each step.
	Progress func(string)
	// Measuring, if not nil, is called when the measured time of a server begins.
	Measuring func(server string, pid int)
}

// DefaultOptions are those of the goal.
func DefaultOptions() Options {
	return Options{
		Starling: []string{"bin/starling"}, Redis: "redis-server", Subscribers: 10_000, Period: time.Second, Connections: 100,
		Rounds: 1, Warmup: 5 * time.Second, Duration: 20 * time.Second, MaxP99: 100 * time.Millisecond, MaxCPURatio: 0.8,
	}
}

// streamsPerConnection bounds the calls of one connection, whose requests have to
// fit what a server takes at once.
const streamsPerConnection = 400

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	faults.Need(o.Centrifugo == "" || o.Redis != "", "redis", o.Redis, "set with centrifugo")
	valid.Between(&faults, "subscribers", o.Subscribers, 1, 250_000)
	valid.AtLeast(&faults, "period", o.Period, 100*time.Millisecond)
	faults.Need(o.Connections >= 1 && o.Connections*streamsPerConnection >= o.Subscribers && o.Connections <= o.Subscribers,
		"connections", o.Connections, "at most the subscribers, and at least one for 400 of them")
	valid.AtLeast(&faults, "rounds", o.Rounds, 1)
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.Positive(&faults, "duration", o.Duration)
	valid.Positive(&faults, "max_p99", o.MaxP99)
	faults.Need(o.MaxCPURatio > 0, "max_cpu_ratio", o.MaxCPURatio, "above 0")
	return faults.Err()
}

// Where the vehicles are: on a grid, so far apart that each ride has its own. Each
// drives on a circle.
const (
	originLatDeg, originLonDeg = 30.0, 10.0
	spacingDeg                 = 0.018 // 2 km
	circleDeg                  = 0.001
	metresPerDegree            = 111_195.0
	speedMPS                   = 10.0
)

// centre returns the middle of a vehicle's circle.
func (o *Options) centre(vehicle int) (latDeg, lonDeg float64) {
	side := int(math.Ceil(math.Sqrt(float64(o.Subscribers))))
	return originLatDeg + spacingDeg*float64(vehicle/side), originLonDeg + spacingDeg*float64(vehicle%side)
}

// at returns where a vehicle is at a time, in degrees.
func (o *Options) at(vehicle int, ms int64) (latDeg, lonDeg float64) {
	angle := float64(vehicle) + float64(ms%1_000_000_000)/1000*speedMPS/(circleDeg*metresPerDegree)
	sin, cos := math.Sincos(angle)
	lat, lon := o.centre(vehicle)
	return lat + circleDeg*sin, lon + circleDeg*cos/math.Cos(lat*math.Pi/180)
}
