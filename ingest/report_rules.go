package ingest

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Bounds of the API that no setting moves.
const (
	maxLabelChars = limits.MaxLabelChars // of a vehicle type and of a tag
	maxTags       = limits.MaxTags
	maxSeats      = limits.MaxSeats
)

// reportRule is one row of the table of rules that a report as a whole must
// keep. A report that breaks one is not stored and ends its stream or call.
type reportRule struct {
	// field is where the rule looks, as google.rpc.BadRequest names it.
	field string
	// name is the rule's label in metrics.
	name string
	// rule is the rule in words.
	rule string
	// setting and bound name the setting that moves the rule's bound and render
	// it; they are empty when it can't be moved.
	setting string
	bound   func(c *Config) string
	// check returns where the report breaks the rule and how, or "".
	check func(v *validator, r *wire.Report) (field, fault string)
}

var reportRules = [...]reportRule{
	{
		field: "report.vehicle_id", name: "vehicle_id",
		rule: limits.VehicleIDRule + "; on a stream it may be left out when it is the previous report's",
		check: func(_ *validator, r *wire.Report) (string, string) {
			if limits.ValidVehicleID(r.VehicleID) {
				return "", ""
			}
			if r.VehicleID == "" {
				return "", "it is missing and there is no report before it that has one"
			}
			return "", fmt.Sprintf("%.80q has %d bytes", r.VehicleID, len(r.VehicleID))
		},
	},
	{
		field: "report.session_id", name: "session_id",
		rule: "Not zero; on a stream it may be left out when it is the previous report's",
		check: func(_ *validator, r *wire.Report) (string, string) {
			if r.SessionID != 0 {
				return "", ""
			}
			return "", "it is missing and there is no report before it that has one"
		},
	},
	{
		field: "report.sequence", name: "sequence",
		rule: "At least 1",
		check: func(_ *validator, r *wire.Report) (string, string) {
			if r.Sequence >= 1 {
				return "", ""
			}
			return "", fmt.Sprintf("it is %d", r.Sequence)
		},
	},
	{
		field: "report", name: "empty",
		rule: "It carries fixes, an availability or attributes",
		check: func(_ *validator, r *wire.Report) (string, string) {
			if len(r.Fixes) > 0 || r.Availability != 0 || r.HasAttributes {
				return "", ""
			}
			return "", "it carries none"
		},
	},
	{
		field: "report.fixes", name: "too_many_fixes",
		rule:    "Not more fixes than the bound",
		setting: "max_fixes", bound: func(c *Config) string { return fmt.Sprint(c.Validation.MaxFixes) },
		check: func(v *validator, r *wire.Report) (string, string) {
			if len(r.Fixes) <= v.cfg.MaxFixes {
				return "", ""
			}
			if len(r.Fixes) > limits.MaxFixesPerReport {
				// No more are even decoded.
				return "", fmt.Sprintf("there are more than %d, at most %d are taken", limits.MaxFixesPerReport, v.cfg.MaxFixes)
			}
			return "", fmt.Sprintf("there are %d, at most %d are taken", len(r.Fixes), v.cfg.MaxFixes)
		},
	},
	{
		field: "report.availability", name: "availability",
		rule: "One that a phone may report: AVAILABILITY_OFFLINE, AVAILABILITY_FREE or AVAILABILITY_BUSY; RESERVED and ON_RIDE are derived by the server",
		check: func(_ *validator, r *wire.Report) (string, string) {
			switch r.Availability {
			case starlingv1.Availability_AVAILABILITY_UNSPECIFIED, starlingv1.Availability_AVAILABILITY_OFFLINE,
				starlingv1.Availability_AVAILABILITY_FREE, starlingv1.Availability_AVAILABILITY_BUSY:
				return "", ""
			case starlingv1.Availability_AVAILABILITY_RESERVED, starlingv1.Availability_AVAILABILITY_ON_RIDE:
				return "", fmt.Sprintf("%s is not for a phone to report", r.Availability)
			}
			return "", fmt.Sprintf("%d is not known", int32(r.Availability))
		},
	},
	{
		field: "report.attributes", name: "attributes",
		rule: "A type of at most 32 characters, 0 to 1000 seats, at most 16 tags, each of at most 32 characters; type and tags " + limits.LabelRule,
		check: func(_ *validator, r *wire.Report) (string, string) {
			return checkAttributes(&r.Attributes)
		},
	},
}

func checkAttributes(a *wire.Attributes) (field, fault string) {
	if fault := labelFault(a.Type); fault != "" {
		return ".type", fault
	}
	if a.Seats < 0 || a.Seats > maxSeats {
		return ".seats", fmt.Sprintf("it is %d", a.Seats)
	}
	if len(a.Tags) > maxTags {
		return ".tags", fmt.Sprintf("there are %d", len(a.Tags))
	}
	for i, tag := range a.Tags {
		if fault := labelFault(tag); fault != "" {
			return fmt.Sprintf(".tags[%d]", i), fault
		}
	}
	return "", ""
}

func labelFault(label string) string {
	if n := len(label); n > maxLabelChars && utf8.RuneCountInString(label) > maxLabelChars {
		return fmt.Sprintf("it has %d characters", utf8.RuneCountInString(label))
	}
	if !limits.VisibleLabel(label) {
		return fmt.Sprintf("%q has a control character or another that shows nothing", label)
	}
	return ""
}

// report returns the rules that r breaks as a whole, with their names.
func (v *validator) report(r *wire.Report) (violations []*errdetails.BadRequest_FieldViolation, names []string) {
	for i := range reportRules {
		rule := &reportRules[i]
		field, fault := rule.check(v, r)
		if fault == "" {
			continue
		}
		names = append(names, rule.name)
		violations = append(violations, &errdetails.BadRequest_FieldViolation{
			Field:       rule.field + field,
			Description: fmt.Sprintf("%s. Rule: %s.", fault, rule.rule),
		})
	}
	return violations, names
}
