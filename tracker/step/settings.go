package step

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/h3"
)

// Newest is the newest version of what Step computes. Any change to its outputs
// is a new version; docs/operations.md says how one is added.
const Newest = 1

// Settings is everything besides the log that Step reads. They stand in the
// partition's state and change only by a version switch in its log.
type Settings struct {
	WindowMS         int64            `json:"window_ms"`
	WindowMaxFixes   int              `json:"window_max_fixes"`
	RepeatIntervalMS int64            `json:"repeat_interval_ms"`
	ForgetAfterMS    int64            `json:"forget_after_ms"`
	MaxAheadMS       int64            `json:"max_ahead_ms"`
	RebaseAfterMS    int64            `json:"rebase_after_ms"`
	H3Resolution     int              `json:"h3_resolution"`
	Filter           gpsfilter.Config `json:"filter"`
}

// DefaultSettings returns the settings that Starling ships with.
func DefaultSettings() Settings {
	const second, hour = 1000, 3_600_000
	return Settings{
		WindowMS:         30 * second,
		WindowMaxFixes:   1024,
		RepeatIntervalMS: 30 * second,
		ForgetAfterMS:    24 * hour,
		MaxAheadMS:       120 * second,
		RebaseAfterMS:    30 * second,
		H3Resolution:     9,
		Filter:           gpsfilter.DefaultConfig(),
	}
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
	inRange("h3_resolution", int64(s.H3Resolution), h3.MinResolution, h3.MaxResolution)
	if err := s.Filter.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("filter: %w", err))
	}
	return errors.Join(errs...)
}
