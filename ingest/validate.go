package ingest

import (
	"fmt"
	"math"
	"sync"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// fixRule is one row of the table of rules that a fix must keep. A fix that
// breaks one is refused; the report's other fixes are kept.
type fixRule struct {
	reason starlingv1.RefusalReason
	// field is what the refusal names.
	field string
	// rule is the rule in words.
	rule string
	// setting and bound name the settings that move the rule's bound and render
	// it; they are empty when it can't be moved.
	setting string
	bound   func(c *ValidationConfig) string
	// needs is the optional field without which the rule does not apply.
	needs wire.Has
	// broken returns whether f breaks the rule.
	broken func(v *validator, f *wire.Fix) bool
	// found renders the offending value.
	found func(f *wire.Fix) any
}

// validator checks reports against the rules. It belongs to one goroutine.
type validator struct {
	cfg ValidationConfig
	// latestMS and earliestMS bound the device time; they follow the wall
	// clock from report to report.
	latestMS, earliestMS int64
	maxSpeed             float32
	minAltitude, maxAlt  float32
	// absent counts, for each of unknownRules, the values left out of the
	// report that was checked last.
	absent [len(unknownRules)]int
}

func newValidator(cfg ValidationConfig) validator {
	return validator{
		cfg:         cfg,
		maxSpeed:    float32(cfg.MaxSpeedMPS),
		minAltitude: float32(cfg.MinAltitudeM),
		maxAlt:      float32(cfg.MaxAltitudeM),
	}
}

// unknown is the value that stands for none: iOS reports it for an unknown
// speed, course and accuracy.
const unknown = -1

// unknownRules are the fields in which unknown is taken for an absent value.
var unknownRules = [...]struct {
	field string
	has   wire.Has
	value func(f *wire.Fix) float32
}{
	{"accuracy_m", wire.HasAccuracy, func(f *wire.Fix) float32 { return f.AccuracyM }},
	{"speed_mps", wire.HasSpeed, func(f *wire.Fix) float32 { return f.SpeedMPS }},
	{"heading_deg", wire.HasHeading, func(f *wire.Fix) float32 { return f.HeadingDeg }},
}

// leaveOut takes the unknown values out of f.
func (v *validator) leaveOut(f *wire.Fix) {
	if !(f.AccuracyM == unknown || f.SpeedMPS == unknown || f.HeadingDeg == unknown) {
		return
	}
	for i := range unknownRules {
		if rule := &unknownRules[i]; f.Has&rule.has != 0 && rule.value(f) == unknown {
			f.Has &^= rule.has
			v.absent[i]++
		}
	}
}

// The refusals that hang on the server's clock.
const (
	refusedAhead = starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_FAR_AHEAD
	refusedOld   = starlingv1.RefusalReason_REFUSAL_REASON_TIME_TOO_OLD
)

// fixRules are checked in this order; the first that is broken is reported. The
// rule that device times do not repeat comes after them: it needs the fixes
// that were accepted before.
var fixRules = [...]fixRule{
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_NOT_FINITE, field: "latitude",
		rule: "Latitude is a finite number", found: latitude,
		broken: func(_ *validator, f *wire.Fix) bool { return !finite(f.LatDeg) },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_NOT_FINITE, field: "longitude",
		rule: "Longitude is a finite number", found: longitude,
		broken: func(_ *validator, f *wire.Fix) bool { return !finite(f.LonDeg) },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_OUT_OF_RANGE, field: "latitude",
		rule: "Latitude lies within [-90, 90] degrees", found: latitude,
		broken: func(_ *validator, f *wire.Fix) bool { return f.LatDeg < -90 || f.LatDeg > 90 },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_COORDINATE_OUT_OF_RANGE, field: "longitude",
		rule: "Longitude lies within [-180, 180] degrees", found: longitude,
		broken: func(_ *validator, f *wire.Fix) bool { return f.LonDeg < -180 || f.LonDeg > 180 },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_NULL_ISLAND, field: "latitude",
		rule: "The position is not exactly (0, 0), which devices report when they have none", found: latitude,
		broken: func(_ *validator, f *wire.Fix) bool { return f.LatDeg == 0 && f.LonDeg == 0 },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_TIME_NOT_POSITIVE, field: "device_time_ms",
		rule: "The device time is positive", found: deviceTime,
		broken: func(_ *validator, f *wire.Fix) bool { return f.DeviceTimeMS <= 0 },
	},
	{
		reason: refusedAhead, field: "device_time_ms",
		rule: "The device time is not further ahead of the server than the bound", found: deviceTime,
		setting: "max_ahead", bound: func(c *ValidationConfig) string { return c.MaxAhead.String() },
		broken: func(v *validator, f *wire.Fix) bool { return f.DeviceTimeMS > v.latestMS },
	},
	{
		reason: refusedOld, field: "device_time_ms",
		rule: "The device time is not further behind the server than the bound", found: deviceTime,
		setting: "max_age", bound: func(c *ValidationConfig) string { return c.MaxAge.String() },
		broken: func(v *validator, f *wire.Fix) bool { return f.DeviceTimeMS < v.earliestMS },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_ACCURACY_INVALID, field: "accuracy_m", needs: wire.HasAccuracy,
		rule:   "The accuracy is finite and not negative; -1 is taken for unknown",
		found:  func(f *wire.Fix) any { return f.AccuracyM },
		broken: func(_ *validator, f *wire.Fix) bool { return !(f.AccuracyM >= 0 && f.AccuracyM <= math.MaxFloat32) },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_SPEED_INVALID, field: "speed_mps", needs: wire.HasSpeed,
		rule:    "The speed is not negative and not above the bound; -1 is taken for unknown",
		setting: "max_speed_mps", bound: func(c *ValidationConfig) string { return fmt.Sprintf("%v m/s", c.MaxSpeedMPS) },
		found:  func(f *wire.Fix) any { return f.SpeedMPS },
		broken: func(v *validator, f *wire.Fix) bool { return !(f.SpeedMPS >= 0 && f.SpeedMPS <= v.maxSpeed) },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_HEADING_INVALID, field: "heading_deg", needs: wire.HasHeading,
		rule:   "The heading lies within [0, 360) degrees; -1 is taken for unknown",
		found:  func(f *wire.Fix) any { return f.HeadingDeg },
		broken: func(_ *validator, f *wire.Fix) bool { return !(f.HeadingDeg >= 0 && f.HeadingDeg < 360) },
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_ALTITUDE_INVALID, field: "altitude_m", needs: wire.HasAltitude,
		rule:    "The altitude lies between the bounds",
		setting: "min_altitude_m, max_altitude_m",
		bound:   func(c *ValidationConfig) string { return fmt.Sprintf("%v m to %v m", c.MinAltitudeM, c.MaxAltitudeM) },
		found:   func(f *wire.Fix) any { return f.AltitudeM },
		broken: func(v *validator, f *wire.Fix) bool {
			return !(f.AltitudeM >= v.minAltitude && f.AltitudeM <= v.maxAlt)
		},
	},
	{
		reason: starlingv1.RefusalReason_REFUSAL_REASON_MOCKED, field: "mocked", needs: wire.HasMocked,
		rule:    "The fix is not marked as mocked; such fixes are accepted unless the setting refuses them",
		setting: "refuse_mocked", bound: func(c *ValidationConfig) string { return fmt.Sprint(c.RefuseMocked) },
		found:  func(f *wire.Fix) any { return f.Mocked },
		broken: func(v *validator, f *wire.Fix) bool { return f.Mocked && v.cfg.RefuseMocked },
	},
}

// timeRepeated is the rule that needs more than the fix itself.
var timeRepeated = fixRule{
	reason: starlingv1.RefusalReason_REFUSAL_REASON_TIME_REPEATED, field: "device_time_ms",
	rule:  "No accepted fix before it in the report has the same device time",
	found: deviceTime,
}

func latitude(f *wire.Fix) any   { return f.LatDeg }
func longitude(f *wire.Fix) any  { return f.LonDeg }
func deviceTime(f *wire.Fix) any { return f.DeviceTimeMS }

func finite(x float64) bool { return x-x == 0 }

// firstBroken returns the first rule that f breaks, or nil.
func (v *validator) firstBroken(f *wire.Fix) *fixRule {
	for i := range fixRules {
		rule := &fixRules[i]
		if f.Has&rule.needs == rule.needs && rule.broken(v, f) {
			return rule
		}
	}
	return nil
}

// fixes moves the good fixes of r to its front, keeps only them, and appends a
// refusal for each of the others.
func (v *validator) fixes(r *wire.Report, number int64, refusals []wire.FixRefusal) []wire.FixRefusal {
	good := 0
	v.absent = [len(unknownRules)]int{}
	var times timeSet
	defer times.release()
	for i := range r.Fixes {
		f := &r.Fixes[i]
		v.leaveOut(f)
		rule := v.firstBroken(f)
		if rule == nil && !times.add(r.Fixes[:good], f.DeviceTimeMS) {
			rule = &timeRepeated
		}
		if rule != nil {
			refusals = append(refusals, wire.FixRefusal{
				ReportNumber: number, Sequence: r.Sequence, FixIndex: int32(i),
				Field: rule.field, Reason: rule.reason, Description: v.describe(rule, f),
			})
			continue
		}
		if good != i {
			r.Fixes[good] = *f
		}
		good++
	}
	r.Fixes = r.Fixes[:good]
	return refusals
}

// describe returns what was found and what the bound is.
func (v *validator) describe(rule *fixRule, f *wire.Fix) string {
	s := fmt.Sprintf("%s is %v. %s", rule.field, rule.found(f), rule.rule)
	if rule.bound != nil {
		s += fmt.Sprintf(" (%s: %s)", rule.setting, rule.bound(&v.cfg))
	}
	return s + "."
}

// timeSet knows the device times that a report's accepted fixes have. As long
// as they ascend, which is the rule, it is only their largest.
type timeSet struct {
	seen map[int64]struct{}
}

var timeSets = sync.Pool{New: func() any { return map[int64]struct{}{} }}

// add adds the time of a fix that follows the accepted ones. It returns false
// when one of them has it.
func (s *timeSet) add(accepted []wire.Fix, ms int64) bool {
	if s.seen == nil {
		if len(accepted) == 0 || ms > accepted[len(accepted)-1].DeviceTimeMS {
			return true
		}
		s.seen = timeSets.Get().(map[int64]struct{})
		for i := range accepted {
			s.seen[accepted[i].DeviceTimeMS] = struct{}{}
		}
	}
	if _, is := s.seen[ms]; is {
		return false
	}
	s.seen[ms] = struct{}{}
	return true
}

func (s *timeSet) release() {
	if s.seen != nil {
		clear(s.seen)
		timeSets.Put(s.seen)
	}
}
