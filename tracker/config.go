package tracker

import (
	"errors"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/h3index"
)

// Config sets the tracker. The fields up to H3Resolution and Filter are read
// by the step: partitions that have a checkpoint keep the values they were
// started with until a version switch in their log names others.
type Config struct {
	Window         time.Duration `koanf:"window" help:"Reorder window: device time behind a vehicle's newest fix within which a fix still changes the state, and time on the partition's clock after the last report at which the window closes."`
	WindowMaxFixes int           `koanf:"window_max_fixes" help:"Largest number of fixes that one vehicle's reorder window holds; more close its oldest end early."`
	RepeatInterval time.Duration `koanf:"repeat_interval" help:"Time on the partition's clock after which a silent vehicle is told again, so that readers can start from a bounded stretch of tracks."`
	ForgetAfter    time.Duration `koanf:"forget_after" help:"Time on the partition's clock without a report after which a vehicle is forgotten."`
	MaxAhead       time.Duration `koanf:"max_ahead" help:"Device time ahead of the partition's clock beyond which the newest fix gives way to the first later report that is not so far ahead."`
	RebaseAfter    time.Duration `koanf:"rebase_after" help:"Time on the partition's clock for which a vehicle's new reports must lie behind its window before the vehicle is followed at the new device time."`
	H3Resolution   int           `koanf:"h3_resolution" help:"H3 resolution of the cell that is published with a live position."`

	TickInterval       time.Duration `koanf:"tick_interval" help:"Silence of a partition after which its owner moves the partition's clock on with a tick."`
	CheckpointInterval time.Duration `koanf:"checkpoint_interval" help:"Time between two checkpoints of a partition, which bounds what is replayed after a crash."`
	MaxInFlightBytes   int           `koanf:"max_in_flight_bytes" help:"Bytes of a partition's track records that may wait for the log."`
	RetryInterval      time.Duration `koanf:"retry_interval" help:"Pause before the tracker takes up its partitions again after the log failed to take a record."`
	Group              string        `koanf:"group" help:"Name of the group that shares the partitions."`

	Filter gpsfilter.Config `koanf:"filter" help:"-"`
}

// DefaultConfig returns the configuration that Starling ships with.
func DefaultConfig() Config {
	return Config{
		Window:             30 * time.Second,
		WindowMaxFixes:     1024,
		RepeatInterval:     30 * time.Second,
		ForgetAfter:        24 * time.Hour,
		MaxAhead:           time.Minute,
		RebaseAfter:        30 * time.Second,
		H3Resolution:       9,
		TickInterval:       time.Second,
		CheckpointInterval: 10 * time.Second,
		MaxInFlightBytes:   1 << 20,
		RetryInterval:      time.Second,
		Group:              "starling-tracker",
		Filter:             gpsfilter.DefaultConfig(),
	}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	errs := []error{c.StepSettings().validate()}
	bad := func(field, rule string, value any) {
		errs = append(errs, fmt.Errorf("%s: %v, must be %s", field, value, rule))
	}
	if c.TickInterval < 10*time.Millisecond || c.TickInterval > time.Hour {
		bad("tick_interval", "between 10ms and 1h", c.TickInterval)
	}
	if c.CheckpointInterval < 10*time.Millisecond || c.CheckpointInterval > time.Hour {
		bad("checkpoint_interval", "between 10ms and 1h", c.CheckpointInterval)
	}
	if c.MaxInFlightBytes < 1<<10 || c.MaxInFlightBytes > 1<<30 {
		bad("max_in_flight_bytes", "between 1024 and 1073741824", c.MaxInFlightBytes)
	}
	if c.RetryInterval < 10*time.Millisecond || c.RetryInterval > time.Hour {
		bad("retry_interval", "between 10ms and 1h", c.RetryInterval)
	}
	if c.Group == "" {
		bad("group", "not empty", `""`)
	}
	return errors.Join(errs...)
}

// StepSettings returns what the step reads.
func (c Config) StepSettings() Settings {
	return Settings{
		WindowMS:         c.Window.Milliseconds(),
		WindowMaxFixes:   c.WindowMaxFixes,
		RepeatIntervalMS: c.RepeatInterval.Milliseconds(),
		ForgetAfterMS:    c.ForgetAfter.Milliseconds(),
		MaxAheadMS:       c.MaxAhead.Milliseconds(),
		RebaseAfterMS:    c.RebaseAfter.Milliseconds(),
		H3Resolution:     c.H3Resolution,
		Filter:           c.Filter,
	}
}

func (s Settings) validate() error {
	var errs []error
	inRange := func(field string, v, lo, hi int64) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s: %d, must be between %d and %d", field, v, lo, hi))
		}
	}
	const hour, day = 3_600_000, 86_400_000
	inRange("window (milliseconds)", s.WindowMS, 0, hour)
	inRange("window_max_fixes", int64(s.WindowMaxFixes), 1, 4096)
	inRange("repeat_interval (milliseconds)", s.RepeatIntervalMS, 1000, day)
	inRange("forget_after (milliseconds)", s.ForgetAfterMS, max(1000, s.WindowMS), 365*day)
	inRange("max_ahead (milliseconds)", s.MaxAheadMS, 0, 365*day)
	inRange("rebase_after (milliseconds)", s.RebaseAfterMS, 1000, day)
	inRange("h3_resolution", int64(s.H3Resolution), h3index.MinResolution, h3index.MaxResolution)
	if err := s.Filter.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("filter: %w", err))
	}
	return errors.Join(errs...)
}
