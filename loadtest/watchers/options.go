// Package watchers measures calls that watch areas: it starts a server of its
// own with a fleet that reports at a steady rate, opens many calls of WatchArea,
// each on an area in which something changes once a second, and measures how
// long a change takes to its clients and what a call costs in memory.
package watchers

import (
	"fmt"
	"math"
	"time"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/valid"
)

// Options are the settings of a measurement.
type Options struct {
	// Starling is the command line of the starling binary.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// Watchers are the calls of WatchArea. They take turns at the areas.
	Watchers int
	// Areas are apart, a kilometre from edge to edge, each with
	// VehiclesPerArea vehicles.
	Areas           int
	VehiclesPerArea int
	// ChangePeriod is the time between two reports in one area.
	ChangePeriod time.Duration
	// MinInterval is what the clients ask for.
	MinInterval time.Duration
	// StreamsPerConnection is how many calls share a connection.
	StreamsPerConnection int
	// Warmup comes before Duration; what arrives in it is not counted.
	Warmup, Duration time.Duration
	// MaxP99 is the promised time from a change to its client, for 99 in 100.
	MaxP99 time.Duration
	// Progress, if not nil, is called with each step.
	Progress func(string)
}

// DefaultOptions are 10,000 clients that see ten vehicles each, of which one
// changes each second.
func DefaultOptions() Options {
	return Options{
		Starling: []string{"bin/starling"},
		Watchers: 10_000, Areas: 10_000, VehiclesPerArea: 10, ChangePeriod: time.Second,
		MinInterval: 100 * time.Millisecond, StreamsPerConnection: 100,
		Warmup: 5 * time.Second, Duration: 30 * time.Second, MaxP99: 250 * time.Millisecond,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	valid.AtLeast(&faults, "watchers", o.Watchers, 1)
	valid.Between(&faults, "areas", o.Areas, 1, 250_000)
	valid.Between(&faults, "vehicles_per_area", o.VehiclesPerArea, 1, 1000)
	valid.AtLeast(&faults, "change_period", o.ChangePeriod, 10*time.Millisecond)
	valid.Between(&faults, "min_interval", o.MinInterval, 50*time.Millisecond, time.Minute)
	valid.AtLeast(&faults, "streams_per_connection", o.StreamsPerConnection, 1)
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.Positive(&faults, "duration", o.Duration)
	valid.Positive(&faults, "max_p99", o.MaxP99)
	return faults.Err()
}

// Result is what was measured.
type Result struct {
	Watchers         int           `json:"watchers"`
	Vehicles         int           `json:"vehicles"`
	Measured         time.Duration `json:"measured_ns"`
	FixesPerSecond   float64       `json:"fixes_per_second"`
	ChangesPerSecond float64       `json:"vehicle_changes_per_second"`
	UpdatesPerSecond float64       `json:"updates_per_second"`
	// FixToClient is from the moment at which a vehicle sends its fix, with
	// which the fix is stamped, to a client having the vehicle's new state.
	FixToClient latency.Summary `json:"fix_to_client"`
	// LogToClient begins when the log took the report.
	LogToClient latency.Summary `json:"log_to_client"`
	// Snapshot is from the opening of a call to its whole first update.
	Snapshot latency.Summary `json:"snapshot"`
	// Silent clients got no update within the measured time.
	Silent int `json:"silent_watchers"`
	// Rescans are updates for which the server looked at a whole area.
	Rescans float64 `json:"area_rescans"`
	// Memory that the server has more of with the calls than before, divided by
	// their number: live heap and stacks, and resident.
	LiveBytesPerWatcher     float64 `json:"live_bytes_per_watcher"`
	ResidentBytesPerWatcher float64 `json:"resident_bytes_per_watcher"`
	// Cores that were busy on average while it was measured.
	ServerCores    float64 `json:"server_cores"`
	GeneratorCores float64 `json:"generator_cores"`
	// Faults name the goals that were missed.
	Faults []string `json:"faults"`
}

// String is the result as a table.
func (r *Result) String() string {
	out := fmt.Sprintf(`%d watchers, %d vehicles, measured for %v
fixes                %10.0f /s
vehicle changes      %10.0f /s in %.0f updates/s
fix to client        %v
log to client        %v
first update         %v
memory per watcher   %10.1f KiB live heap and stacks, %.1f KiB resident
silent watchers      %10d
area rescans         %10.0f
busy cores           %10.2f server, %.2f generator and clients
`, r.Watchers, r.Vehicles, r.Measured.Round(time.Millisecond), r.FixesPerSecond, r.ChangesPerSecond, r.UpdatesPerSecond,
		r.FixToClient, r.LogToClient, r.Snapshot, r.LiveBytesPerWatcher/1024, r.ResidentBytesPerWatcher/1024, r.Silent, r.Rescans, r.ServerCores, r.GeneratorCores)
	return out
}

// Misses are Faults.
func (r *Result) Misses() []string { return r.Faults }

// The areas are squares on a grid around a place, their centres spacingDeg of
// latitude apart and their edges half of that.
const (
	originLatDeg, originLonDeg = 30.0, 10.0
	spacingDeg                 = 0.018 // 2 km
	circleDeg                  = 0.001 // 111 m: the vehicles' circles are within their areas
)

// centre returns the centre of an area.
func (o *Options) centre(area int) (latDeg, lonDeg float64) {
	side := int(math.Ceil(math.Sqrt(float64(o.Areas))))
	return originLatDeg + spacingDeg*float64(area/side), originLonDeg + spacingDeg*float64(area%side)
}
