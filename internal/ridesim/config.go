// Package ridesim compares ways to match rides with vehicles: it drives a fleet
// through a demand on a virtual clock, as fast as it can, and counts what riders
// waited and what vehicles drove. The matchers are those of the rides role. The
// same configuration gives the same result on every run.
package ridesim

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config is one run. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// Vehicles is how many there are all the time. Each starts at the pickup of a
	// trip drawn from the demand, and stays where its last rider got off.
	Vehicles int `koanf:"vehicles" help:"How many vehicles there are all the time."`
	// Share is the part of the demand that is requested, above 0 and at most 1.
	Share float64 `koanf:"share" help:"Part of the demand that is requested, drawn by the seed."`
	// Seed chooses the trips and where vehicles start.
	Seed int64 `koanf:"seed" help:"Chooses the trips and where vehicles start; the same seed gives the same result."`
	// SpeedMPS and Detour turn a straight line into a time: every way is so much
	// longer than it, and driven at so many metres per second.
	SpeedMPS float64 `koanf:"speed_mps" help:"Speed of every vehicle, in metres per second."`
	Detour   float64 `koanf:"detour" help:"Ratio of a way's length to the straight line."`
	// Search is how long a vehicle is searched before a rider gives up.
	Search time.Duration `koanf:"search" help:"How long a vehicle is searched before a rider gives up."`
	// Step is that of the virtual clock.
	Step time.Duration `koanf:"step" help:"Step of the virtual clock."`
}

// DefaultConfig returns the tight supply of docs/matching.md.
func DefaultConfig() Config {
	return Config{Vehicles: 2400, Share: 0.3, Seed: 1, SpeedMPS: 6, Detour: 1.3, Search: 5 * time.Minute, Step: time.Second}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "vehicles", c.Vehicles, 1, 1_000_000)
	faults.Need(c.Share > 0 && c.Share <= 1, "share", c.Share, "above 0 and at most 1")
	faults.Need(c.SpeedMPS > 0 && c.SpeedMPS <= 100, "speed_mps", c.SpeedMPS, "above 0 and at most 100")
	valid.Between(&faults, "detour", c.Detour, 1, 100)
	valid.Between(&faults, "search", c.Search, time.Second, 24*time.Hour)
	valid.Between(&faults, "step", c.Step, 10*time.Millisecond, time.Minute)
	return faults.Err()
}
