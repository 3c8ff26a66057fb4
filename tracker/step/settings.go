package step

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/internal/valid"
)

// Newest is the newest version of what Step computes. Any change to its outputs
// is a new version; docs/operations.md describes how one is added.
const Newest = 3

// Settings is everything besides the log that Step reads. They stand in the
// partition's state and change only by a version switch in its log. docs/step.md
// has the rules that they belong to.
type Settings struct {
	// WindowMS is the reorder window, of device time and of stream time.
	WindowMS       int64 `json:"window_ms"`
	WindowMaxFixes int   `json:"window_max_fixes"`
	// RepeatIntervalMS is the stream time after a vehicle's last report at which
	// its view is published again; each further interval is twice the one before,
	// up to RepeatMaxIntervalMS.
	RepeatIntervalMS    int64 `json:"repeat_interval_ms"`
	RepeatMaxIntervalMS int64 `json:"repeat_max_interval_ms"`
	// ForgetAfterMS is the stream time since the last report after which a vehicle
	// is forgotten, and ForgetSingleAfterMS that for one that has reported once.
	ForgetAfterMS       int64 `json:"forget_after_ms"`
	ForgetSingleAfterMS int64 `json:"forget_single_after_ms"`
	// MaxVehicles is how many vehicles the partition knows at most. Reports of
	// others are refused.
	MaxVehicles int `json:"max_vehicles"`
	// MaxAheadMS bounds how far a fix may be ahead of the log's time, and a
	// learned offset of a device's clock.
	MaxAheadMS    int64 `json:"max_ahead_ms"`
	RebaseAfterMS int64 `json:"rebase_after_ms"`
	H3Resolution  int   `json:"h3_resolution"`
	// ClockJumpMS is the distance of a stamp from stream time that is a jump,
	// and ClockSettleMS the time of their own that stamps must stay there.
	ClockJumpMS   int64 `json:"clock_jump_ms"`
	ClockSettleMS int64 `json:"clock_settle_ms"`
	// RememberFixes is how many fixes of a vehicle are recognised besides those
	// in its window.
	RememberFixes int `json:"remember_fixes"`
	// SessionSilenceMS is the stream time after which a session is silent.
	SessionSilenceMS int64 `json:"session_silence_ms"`
	// AheadToleranceMS is how far a fix may be ahead of what is expected of its
	// device.
	AheadToleranceMS int64 `json:"ahead_tolerance_ms"`
	// ClockMemoryMS is half of the stream time for which an observation of a
	// device's clock counts.
	ClockMemoryMS int64 `json:"clock_memory_ms"`
	// DispatchMaxAgeMS is the age of the newest fix up to which a vehicle is
	// dispatchable.
	DispatchMaxAgeMS int64 `json:"dispatch_max_age_ms"`
	// Partitions is how many partitions `rides` has: nothing is reserved in an
	// epoch before all of them have restated their promises.
	Partitions int32 `json:"partitions"`
	// MaxDecideAheadMS is how far ahead of stream time a proposal may ask to be
	// decided, and RememberAttempts how many attempts of a vehicle that can still
	// be decided are remembered.
	MaxDecideAheadMS int64            `json:"max_decide_ahead_ms"`
	RememberAttempts int              `json:"remember_attempts"`
	Filter           gpsfilter.Config `json:"filter"`
}

// DefaultSettings returns the settings that Starling ships with.
func DefaultSettings() Settings {
	const second, hour = 1000, 3_600_000
	return Settings{
		WindowMS:         30 * second,
		WindowMaxFixes:   1024,
		RepeatIntervalMS: 30 * second, RepeatMaxIntervalMS: 60 * second,
		ForgetAfterMS: 24 * hour, ForgetSingleAfterMS: 600 * second,
		MaxVehicles:      40_000,
		MaxAheadMS:       120 * second,
		RebaseAfterMS:    300 * second,
		H3Resolution:     9,
		ClockJumpMS:      60 * second,
		ClockSettleMS:    30 * second,
		RememberFixes:    64,
		SessionSilenceMS: 30 * second,
		AheadToleranceMS: 5 * second,
		ClockMemoryMS:    300 * second,
		DispatchMaxAgeMS: 60 * second,
		Partitions:       1, MaxDecideAheadMS: 60 * second, RememberAttempts: 64,
		Filter: gpsfilter.DefaultConfig(),
	}
}

// maxRememberFixes bounds Settings.RememberFixes: each takes 8 bytes a vehicle.
const maxRememberFixes = 1024

// maxVehicles bounds Settings.MaxVehicles: a partition is one goroutine's work.
const maxVehicles = 100_000_000

// repeats returns the last moment at which the view of a vehicle is published
// again that a silence of so long has reached, 0 if none, and the first that it
// has not; both from the last report on. The first is RepeatIntervalMS, and each
// interval twice the one before, up to RepeatMaxIntervalMS.
func (s *Settings) repeats(silentMS int64) (lastMS, nextMS int64) {
	interval := s.RepeatIntervalMS
	nextMS = interval
	for nextMS <= silentMS {
		lastMS = nextMS
		if interval == s.RepeatMaxIntervalMS {
			lastMS += (silentMS - nextMS) / interval * interval
			return lastMS, lastMS + interval
		}
		interval = min(2*interval, s.RepeatMaxIntervalMS)
		nextMS += interval
	}
	return lastMS, nextMS
}

// Encode returns the canonical encoding of s: JSON in the order of the fields.
func (s Settings) Encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		// Only a NaN or an infinity can't be encoded, and Validate refuses both.
		panic(fmt.Sprintf("tracker settings: %v", err))
	}
	return b
}

// DecodeSettings reads what Encode wrote. It refuses fields that it does not
// know, and values that break a rule.
func DecodeSettings(b []byte) (Settings, error) {
	var s Settings
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("step settings: %w", err)
	}
	if err := s.Validate(); err != nil {
		return Settings{}, fmt.Errorf("step settings: %w", err)
	}
	return s, nil
}

// Validate returns all faults of s joined, each naming its field and rule, or
// nil.
func (s Settings) Validate() error {
	var faults valid.Faults
	milliseconds := func(field string, v, lo, hi int64) {
		const most = math.MaxInt64 / int64(time.Millisecond)
		as := func(ms int64) time.Duration { return time.Duration(max(-most, min(most, ms))) * time.Millisecond }
		valid.Between(&faults, field, as(v), as(lo), as(hi))
	}
	const hour, day = 3_600_000, 86_400_000
	milliseconds("window", s.WindowMS, 0, hour)
	valid.Between(&faults, "window_max_fixes", s.WindowMaxFixes, 1, 4096)
	milliseconds("repeat_interval", s.RepeatIntervalMS, 1000, day)
	milliseconds("repeat_max_interval", s.RepeatMaxIntervalMS, s.RepeatIntervalMS, day)
	milliseconds("forget_after", s.ForgetAfterMS, max(1000, s.WindowMS), 365*day)
	milliseconds("forget_single_after", s.ForgetSingleAfterMS, max(1000, s.WindowMS), 365*day)
	valid.Between(&faults, "max_vehicles", s.MaxVehicles, 1, maxVehicles)
	milliseconds("max_ahead", s.MaxAheadMS, 0, 365*day)
	milliseconds("rebase_after", s.RebaseAfterMS, 1000, day)
	milliseconds("clock_jump", s.ClockJumpMS, 1000, 365*day)
	milliseconds("clock_settle", s.ClockSettleMS, 1000, day)
	valid.Between(&faults, "remember_fixes", s.RememberFixes, 0, maxRememberFixes)
	milliseconds("session_silence", s.SessionSilenceMS, 1000, day)
	milliseconds("ahead_tolerance", s.AheadToleranceMS, 0, hour)
	milliseconds("clock_memory", s.ClockMemoryMS, 1000, day)
	milliseconds("dispatch_max_age", s.DispatchMaxAgeMS, 1000, day)
	valid.Between(&faults, "partitions", s.Partitions, 1, 1<<16)
	milliseconds("max_decide_ahead", s.MaxDecideAheadMS, 1000, hour)
	valid.Between(&faults, "remember_attempts", s.RememberAttempts, 1, 1024)
	valid.Between(&faults, "h3_resolution", s.H3Resolution, h3.MinResolution, h3.MaxResolution)
	faults.In("filter", s.Filter.Validate())
	return faults.Err()
}
