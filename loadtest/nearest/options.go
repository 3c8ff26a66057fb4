// Package nearest measures searches for the nearest vehicles of a fleet that
// moves all the while, on Starling and on Redis, side by side.
//
// Starling is `starling up` on a new local log: every position update goes
// through ingest, log, tracker and matcher, and every search over gRPC. Redis
// gets the same positions by GEOADD and is searched by GEOSEARCH. Both answer
// over loopback, and the load generator runs on the same CPUs.
package nearest

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Options are the settings of a measurement.
type Options struct {
	// Starling is the command that starts Starling, without `up`.
	Starling []string
	// Redis is the redis-server binary; empty leaves Redis out.
	Redis string
	// WorkDir is where the servers keep their data; empty means the system's
	// temporary folder.
	WorkDir string
	// Vehicles is the size of the fleet.
	Vehicles int
	// UpdatesPerSecond are positions reported, by all vehicles in turn; at most
	// MaxUpdatesPerVehicle times Vehicles.
	UpdatesPerSecond int
	// Connections to search on, each with one search at a time.
	Connections int
	// SideM is the side of the square that the fleet drives in.
	SideM float64
	// RadiusM bounds each search.
	RadiusM float64
	// Results are wanted of each search.
	Results int
	// RedisPipeline is how many GEOADD are sent at a time.
	RedisPipeline int
	// Rounds is how often everything is measured, Starling and Redis in turn.
	Rounds int
	// Warmup comes before each measurement of Duration.
	Warmup, Duration time.Duration
	// Layouts are the names of those to measure; none means all.
	Layouts []string
	// OpenLoopPerSecond is the rate of searches of the open loop; 0 means what
	// Redis can just sustain.
	OpenLoopPerSecond float64
	// Profile, when not empty, is a folder that gets Starling's CPU profile of
	// each measurement.
	Profile string
	// Progress, if not nil, is called with each step.
	Progress func(string)
}

// MaxUpdatesPerVehicle bounds UpdatesPerSecond: a vehicle's fixes need device
// times of their own, in milliseconds.
const MaxUpdatesPerVehicle = 100

// DefaultOptions measure a city of 30 km by 30 km.
func DefaultOptions() Options {
	return Options{
		Starling: []string{"bin/starling"}, Redis: "redis-server",
		Vehicles: 100_000, UpdatesPerSecond: 20_000, Connections: 8,
		SideM: 30_000, RadiusM: 2000, Results: 10, RedisPipeline: 20,
		Rounds: 5, Warmup: 2 * time.Second, Duration: 5 * time.Second,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	valid.AtLeast(&faults, "vehicles", o.Vehicles, streams)
	faults.Need(o.UpdatesPerSecond >= 0 && o.UpdatesPerSecond <= MaxUpdatesPerVehicle*o.Vehicles, "updates_per_second", o.UpdatesPerSecond, fmt.Sprintf("between 0 and %d for each vehicle", MaxUpdatesPerVehicle))
	valid.Between(&faults, "connections", o.Connections, 1, 1000)
	valid.Between(&faults, "side_m", o.SideM, 100, 500_000)
	valid.Positive(&faults, "radius_m", o.RadiusM)
	valid.Between(&faults, "results", o.Results, 1, 1000)
	valid.AtLeast(&faults, "redis_pipeline", o.RedisPipeline, 1)
	valid.AtLeast(&faults, "rounds", o.Rounds, 1)
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.AtLeast(&faults, "duration", o.Duration, 100*time.Millisecond)
	valid.AtLeast(&faults, "open_loop_per_second", o.OpenLoopPerSecond, 0)
	faults.Need(o.Redis != "" || o.OpenLoopPerSecond > 0, "open_loop_per_second", o.OpenLoopPerSecond, "positive without a Redis to find it")
	if _, err := o.layouts(); err != nil {
		faults.Add(err)
	}
	return faults.Err()
}

func (o Options) layouts() ([]layout, error) {
	if len(o.Layouts) == 0 {
		return allLayouts, nil
	}
	var out []layout
	for _, name := range o.Layouts {
		found := false
		for _, l := range allLayouts {
			if l.name == name {
				out, found = append(out, l), true
			}
		}
		if !found {
			return nil, fmt.Errorf("layouts is %q: must be uniform, downtown or onespot", name)
		}
	}
	return out, nil
}
