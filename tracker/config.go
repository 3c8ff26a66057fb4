package tracker

import (
	"time"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker/step"
)

// Config sets the tracker. The fields up to H3Resolution and Filter are read
// by the step: partitions that have a checkpoint keep the values they were
// started with until a version switch in their log names others.
type Config struct {
	Window         time.Duration `koanf:"window" help:"Reorder window: device time behind a vehicle's newest fix within which a fix still changes the state, and stream time after the last report at which the window closes."`
	WindowMaxFixes int           `koanf:"window_max_fixes" help:"Largest number of fixes that one vehicle's reorder window holds; more close its oldest end early."`
	RepeatInterval time.Duration `koanf:"repeat_interval" help:"Stream time after its last report at which the view of a silent vehicle is published again, so that readers can start from a bounded stretch of tracks; each further interval is twice the one before, up to repeat_max_interval."`

	RepeatMaxInterval time.Duration `koanf:"repeat_max_interval" help:"Longest interval at which the view of a silent vehicle is published again. A silent fleet costs less the longer it is, and a matcher's start reads more: matcher.rebuild_window must be at least as long and one repeat_interval more."`

	ForgetAfter time.Duration `koanf:"forget_after" help:"Stream time without a report after which a vehicle is forgotten."`

	ForgetSingleAfter time.Duration `koanf:"forget_single_after" help:"The same for a vehicle that has reported once. Vehicles that always report more rarely than this never get older than their last report."`

	MaxVehicles int `koanf:"max_vehicles" help:"Largest number of vehicles of the whole fleet, shared evenly among the partitions. A partition that knows its share refuses reports of vehicles that it does not know, and publishes that; vehicles are not spread quite evenly, so leave a margin of a tenth."`

	MaxAhead       time.Duration `koanf:"max_ahead" help:"Device time ahead of the log's time beyond which a fix is always set aside, and largest offset of a device's clock that is learned; ingest refuses fixes that are further ahead (ingest.validation.max_ahead)."`
	RebaseAfter    time.Duration `koanf:"rebase_after" help:"Stream time for which a vehicle's new reports must lie behind its window, at about the pace of stream time, before the vehicle is followed at the new device time."`
	ClockJump      time.Duration `koanf:"clock_jump" help:"Distance of a record's append time from stream time beyond which it is a jump, which is not believed at once."`
	ClockSettle    time.Duration `koanf:"clock_settle" help:"Time, by the append times themselves, for which they must stay beyond a jump before stream time follows; windows, expiry and forgetting stand still until then."`
	RememberFixes  int           `koanf:"remember_fixes" help:"Number of a vehicle's fixes behind its reorder window of which a copy is still recognised, whatever session and sequence it comes with; each takes 8 bytes a vehicle."`
	SessionSilence time.Duration `koanf:"session_silence" help:"Stream time without a report of the authoritative session after which an older session of the vehicle counts again, and for which a vehicle is conflicting after two phones have reported for it."`
	AheadTolerance time.Duration `koanf:"ahead_tolerance" help:"Device time ahead of the log's time, and of what is learned of the device's clock, up to which a fix is taken as the device's delay; beyond it the fix is set aside until reports in a row confirm it."`
	ClockMemory    time.Duration `koanf:"clock_memory" help:"Stream time for which a vehicle's reports count for the offset of its device's clock; they do for up to twice as long."`
	DispatchMaxAge time.Duration `koanf:"dispatch_max_age" help:"Age of the newest fix, corrected for the device's clock, up to which a free vehicle is dispatchable."`
	H3Resolution   int           `koanf:"h3_resolution" help:"H3 resolution of the cell that is published with a live position."`

	TickInterval       time.Duration `koanf:"tick_interval" help:"Silence of a partition after which its owner moves stream time on with a tick."`
	CheckpointInterval time.Duration `koanf:"checkpoint_interval" help:"Time between two checkpoints of a partition, which bounds what is replayed after a crash."`
	MaxInFlightBytes   int           `koanf:"max_in_flight_bytes" help:"Bytes of a partition's track records that may wait for the log."`
	RetryInterval      time.Duration `koanf:"retry_interval" help:"Pause before the tracker takes up its partitions again after the log failed to take a record."`
	Group              string        `koanf:"group" help:"Name of the group that shares the partitions."`

	Filter gpsfilter.Config `koanf:"filter" help:"-"`
}

// DefaultConfig returns the configuration that Starling ships with.
func DefaultConfig() Config {
	s := step.DefaultSettings()
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return Config{
		Window:         ms(s.WindowMS),
		WindowMaxFixes: s.WindowMaxFixes,
		RepeatInterval: ms(s.RepeatIntervalMS), RepeatMaxInterval: ms(s.RepeatMaxIntervalMS),
		ForgetAfter: ms(s.ForgetAfterMS), ForgetSingleAfter: ms(s.ForgetSingleAfterMS),
		MaxVehicles: s.MaxVehicles * topics.DefaultPartitions,
		MaxAhead:    ms(s.MaxAheadMS),
		RebaseAfter: ms(s.RebaseAfterMS),
		ClockJump:   ms(s.ClockJumpMS), ClockSettle: ms(s.ClockSettleMS), RememberFixes: s.RememberFixes,
		SessionSilence: ms(s.SessionSilenceMS), AheadTolerance: ms(s.AheadToleranceMS),
		ClockMemory: ms(s.ClockMemoryMS), DispatchMaxAge: ms(s.DispatchMaxAgeMS),
		H3Resolution: s.H3Resolution,
		Filter:       s.Filter,

		TickInterval:       time.Second,
		CheckpointInterval: 10 * time.Second,
		MaxInFlightBytes:   1 << 20,
		RetryInterval:      time.Second,
		Group:              "starling-tracker",
	}
}

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	faults.Add(c.StepSettings(1).Validate())
	valid.Between(&faults, "tick_interval", c.TickInterval, 10*time.Millisecond, time.Hour)
	valid.Between(&faults, "checkpoint_interval", c.CheckpointInterval, 10*time.Millisecond, time.Hour)
	valid.Between(&faults, "max_in_flight_bytes", c.MaxInFlightBytes, 1<<10, 1<<30)
	valid.Between(&faults, "retry_interval", c.RetryInterval, 10*time.Millisecond, time.Hour)
	faults.Need(c.Group != "", "group", c.Group, "set")
	return faults.Err()
}

// StepSettings returns what the step of one partition reads, in a log of so many.
func (c Config) StepSettings(partitions int) step.Settings {
	return step.Settings{
		WindowMS:         c.Window.Milliseconds(),
		WindowMaxFixes:   c.WindowMaxFixes,
		RepeatIntervalMS: c.RepeatInterval.Milliseconds(), RepeatMaxIntervalMS: c.RepeatMaxInterval.Milliseconds(),
		ForgetAfterMS: c.ForgetAfter.Milliseconds(), ForgetSingleAfterMS: c.ForgetSingleAfter.Milliseconds(),
		MaxVehicles:      (c.MaxVehicles + partitions - 1) / partitions,
		MaxAheadMS:       c.MaxAhead.Milliseconds(),
		RebaseAfterMS:    c.RebaseAfter.Milliseconds(),
		H3Resolution:     c.H3Resolution,
		ClockJumpMS:      c.ClockJump.Milliseconds(),
		ClockSettleMS:    c.ClockSettle.Milliseconds(),
		RememberFixes:    c.RememberFixes,
		SessionSilenceMS: c.SessionSilence.Milliseconds(),
		AheadToleranceMS: c.AheadTolerance.Milliseconds(),
		ClockMemoryMS:    c.ClockMemory.Milliseconds(),
		DispatchMaxAgeMS: c.DispatchMaxAge.Milliseconds(),
		Partitions:       int32(partitions), MaxDecideAheadMS: 60_000, RememberAttempts: 64,
		Filter: c.Filter,
	}
}
