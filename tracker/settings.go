package tracker

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/starling-fleet/starling/gpsfilter"
)

// StepVersion is the newest version of what Step computes. Any change to its
// outputs is a new version; docs/operations.md says how one is added.
const StepVersion = 1

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

// Encode returns the canonical encoding of s: JSON in the order of the fields.
func (s Settings) Encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		// Only a NaN or an infinity can't be encoded, and validate refuses both.
		panic(fmt.Sprintf("tracker settings: %v", err))
	}
	return b
}

// DecodeSettings reads what Encode wrote. It refuses fields that it does not
// know, and values that Config.Validate would refuse.
func DecodeSettings(b []byte) (Settings, error) {
	var s Settings
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("step settings: %w", err)
	}
	if err := s.validate(); err != nil {
		return Settings{}, fmt.Errorf("step settings: %w", err)
	}
	return s, nil
}
