package matcher

import (
	"net/http"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/supply"
)

// Config sets the matcher.
type Config struct {
	StaleAfter    time.Duration `koanf:"stale_after" help:"How far a partition's stream time, and the append time of its newest record, may be behind the wall clock before answers name the partition as stale."`
	RebuildWindow time.Duration `koanf:"rebuild_window" help:"Stretch of each partition of tracks, counted back from its newest record in stream time, that is read at start; at least the tracker's repeat_max_interval and repeat_interval together, or silent vehicles are missed. 0 reads everything that is kept."`
	MaxWatchers   int           `koanf:"max_watchers" help:"Largest number of calls that watch vehicles, of calls that watch areas, and of calls that watch counts, at the same time."`

	MaxAreaVehicles int `koanf:"max_area_vehicles" help:"Largest number of vehicles inside the area that one call watches, and of cells in which one call watches counts; bounds the call's memory, about 100 bytes each."`

	WatchBytes int64 `koanf:"watch_bytes" help:"Budget for the areas of calls that watch areas and for what these were sent, in bytes, with those that ended within a minute and may be resumed. When it is used up, those that may be resumed are forgotten, the oldest first, and then calls are refused."`

	SupplyResolution int `koanf:"supply_resolution" help:"Finest H3 resolution, 0 to 15, at which vehicles are counted by cell; about 100 bytes for each cell that has vehicles, of this and all coarser resolutions."`

	MaxPlaybackFixes int `koanf:"max_playback_fixes" help:"Largest number of fixes that are kept for calls that play vehicles out, about 60 bytes each; when there are more, the oldest of the vehicle that has just reported go."`

	DispatchMaxAge time.Duration `koanf:"dispatch_max_age" help:"Longest time after a vehicle's newest fix for which it counts as dispatchable; as tracker.dispatch_max_age. It holds also while the tracker is behind."`

	PredictLimit time.Duration `koanf:"predict_limit" help:"Longest time after a vehicle's newest fix for which a search predicts where it is."`

	Region      string        `koanf:"region" help:"Region of matcher.regions that this replica is limited to; empty means that it keeps the whole fleet. See docs/scale-out.md."`
	Regions     []string      `koanf:"regions" help:"How the earth is divided among matchers that are limited to regions: NAME=CELL CELL ... with H3 cells of any resolutions, best none finer than tracker.h3_resolution; one of them may be NAME=rest. They must cover the earth and not overlap, and must be the same for all processes."`
	RegionGrace time.Duration `koanf:"region_grace" help:"How long, in its partition's stream time, a vehicle is still kept after it has left the region; at least 15s longer than stale_after."`

	ETA ETAConfig `koanf:"eta"`
}

// ETAConfig sets how travel times are estimated.
type ETAConfig struct {
	SpeedMPS     float64       `koanf:"speed_mps" help:"Speed in metres per second along the great circle that is assumed when no routing server is set."`
	Detour       float64       `koanf:"detour" help:"Ratio of a way's length to the great circle's that is assumed when no routing server is set."`
	OSRMURL      string        `koanf:"osrm_url" help:"Base URL of an OSRM server that is asked for travel times; empty means none."`
	OSRMProfile  string        `koanf:"osrm_profile" help:"Routing profile that the OSRM server is asked for."`
	OSRMMaxTable int           `koanf:"osrm_max_table" help:"Places in one table that the OSRM server takes, its --max-table-size."`
	OSRMTimeout  time.Duration `koanf:"osrm_timeout" help:"Longest time that one request to the OSRM server may take."`
}

// DefaultConfig returns the configuration that Starling ships with.
func DefaultConfig() Config {
	return Config{
		StaleAfter:      5 * time.Second,
		RebuildWindow:   90 * time.Second,
		MaxWatchers:     20_000,
		MaxAreaVehicles: 20_000,
		WatchBytes:      48 << 20,

		SupplyResolution: 9,

		MaxPlaybackFixes: 1_000_000,
		DispatchMaxAge:   time.Minute,
		PredictLimit:     20 * time.Second,
		RegionGrace:      30 * time.Second,
		ETA: ETAConfig{
			SpeedMPS: 8, Detour: 1.35,
			OSRMProfile: "driving", OSRMMaxTable: 100, OSRMTimeout: 2 * time.Second,
		},
	}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "stale_after", c.StaleAfter, 100*time.Millisecond, time.Hour)
	faults.Need(c.RebuildWindow == 0 || c.RebuildWindow >= 10*time.Second && c.RebuildWindow <= 365*24*time.Hour, "rebuild_window", c.RebuildWindow, "0 or between 10s and 8760h")
	valid.Between(&faults, "max_watchers", c.MaxWatchers, 1, 10_000_000)
	valid.Between(&faults, "max_area_vehicles", c.MaxAreaVehicles, 1, 10_000_000)
	valid.AtLeast(&faults, "watch_bytes", c.WatchBytes, 1<<20)
	valid.Between(&faults, "supply_resolution", c.SupplyResolution, 0, supply.MaxResolution)
	valid.Between(&faults, "max_playback_fixes", c.MaxPlaybackFixes, 1000, 1_000_000_000)
	valid.Between(&faults, "dispatch_max_age", c.DispatchMaxAge, time.Second, time.Hour)
	valid.Between(&faults, "predict_limit", c.PredictLimit, time.Second, 5*time.Minute)
	_, err := c.ETA.Estimator()
	faults.In("eta", err)
	c.validateRegion(&faults)
	return faults.Err()
}

// Estimator returns what the configuration describes, or a fault that names the
// field and the rule.
func (c ETAConfig) Estimator() (eta.Estimator, error) {
	var faults valid.Faults
	valid.Between(&faults, "osrm_timeout", c.OSRMTimeout, 10*time.Millisecond, time.Minute)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if c.OSRMURL != "" {
		return eta.NewOSRM(c.OSRMURL, c.OSRMProfile, c.OSRMMaxTable, &http.Client{Timeout: c.OSRMTimeout})
	}
	return eta.NewGreatCircle(c.SpeedMPS, c.Detour)
}
