package trackform

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Explained is what became of a fix, as it is printed.
type Explained struct {
	Vehicle    string    `json:"vehicle"`
	DeviceTime time.Time `json:"device_time"`
	// Kind and Verdict are absent when no row stands for the fix.
	Kind      string  `json:"kind,omitempty"`
	Verdict   string  `json:"verdict,omitempty"`
	Reported  *Values `json:"reported,omitempty"`
	Corrected *Values `json:"corrected,omitempty"`
	Display   *Values `json:"display,omitempty"`
	Arrivals  []Came  `json:"arrivals"`
}

// Values are a position and what goes with it.
type Values struct {
	Latitude   float64  `json:"latitude"`
	Longitude  float64  `json:"longitude"`
	SpeedMPS   *float64 `json:"speed_mps,omitempty"`
	HeadingDeg *float64 `json:"heading_deg,omitempty"`
	AccuracyM  *float64 `json:"accuracy_m,omitempty"`
}

// Came is one time that the fix came.
type Came struct {
	Epoch    int64  `json:"epoch"`
	Offset   int64  `json:"offset"`
	Session  uint64 `json:"session_id"`
	Sequence int64  `json:"sequence"`
	Outcome  string `json:"outcome"`
	Rule     string `json:"rule,omitempty"`
	// Reported is what came, of a fix that does not stand.
	Reported *Values `json:"reported,omitempty"`
	because  string
}

// rules say what became of a fix, and why.
var rules = map[starlingv1.OutcomeRule]struct{ outcome, because string }{
	starlingv1.OutcomeRule_OUTCOME_RULE_UNSPECIFIED:          {"accepted", ""},
	starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT:         {"duplicate", "a fix with this device time and content was there before"},
	starlingv1.OutcomeRule_OUTCOME_RULE_KNOWN_REPORT:         {"duplicate", "a report with this session and sequence was there before"},
	starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT:        {"conflict", "a fix with this device time and other content was there first"},
	starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW:        {"late", "it came when its reorder window had closed"},
	starlingv1.OutcomeRule_OUTCOME_RULE_DEVICE_TIME_GIVEN_UP: {"late", "its report is of before the vehicle's device time was given up for another"},
	starlingv1.OutcomeRule_OUTCOME_RULE_SESSION_SHUT_OUT:     {"set aside", "another session had taken over"},
	starlingv1.OutcomeRule_OUTCOME_RULE_STAMPED_AHEAD:        {"set aside", "it is stamped ahead of its device's clock"},
	starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL:       {"refused", "the vehicle was unknown and its partition held as many as it may (tracker.max_vehicles)"},
}

// Explain is what is printed of an explanation.
func Explain(vehicle string, deviceTimeMS int64, e store.Explanation) Explained {
	out := Explained{Vehicle: vehicle, DeviceTime: time.UnixMilli(deviceTimeMS).UTC(), Arrivals: []Came{}}
	if f := &e.Fix; e.Found {
		out.Kind = f.Kind.String()
		reported := f.Reported()
		out.Reported = valuesOf(&reported)
		if f.Has&row.HasEstimate != 0 {
			out.Verdict = strings.ToLower(strings.TrimPrefix(f.Verdict.String(), "VERDICT_"))
			out.Corrected, out.Display = at7(f.Corrected), at7(f.Display)
			out.Corrected.SpeedMPS, out.Corrected.HeadingDeg = number(f.Has, row.HasSpeed, f.SpeedCMPS, 100), number(f.Has, row.HasHeading, f.HeadingDDeg, 10)
		}
	}
	for i := range e.Arrivals {
		a := &e.Arrivals[i]
		known, ok := rules[a.Rule]
		if !ok {
			known.outcome = "not accepted"
		}
		c := Came{Epoch: a.Epoch, Offset: a.Offset, Session: a.Session, Sequence: a.Sequence, Outcome: known.outcome, because: known.because}
		if a.Rule != 0 {
			c.Rule = strings.ToLower(strings.TrimPrefix(a.Rule.String(), "OUTCOME_RULE_"))
		}
		if a.Reported != (row.Reported{}) {
			c.Reported = valuesOf(&a.Reported)
		}
		out.Arrivals = append(out.Arrivals, c)
	}
	return out
}

func at7(p row.Position) *Values {
	return &Values{Latitude: float64(p.LatE7) / 1e7, Longitude: float64(p.LonE7) / 1e7}
}

func valuesOf(r *row.Reported) *Values {
	v := at7(r.Position)
	v.SpeedMPS, v.HeadingDeg, v.AccuracyM = number(r.Has, row.HasRawSpeed, r.SpeedCMPS, 100), number(r.Has, row.HasRawHeading, r.HeadingDDeg, 10), number(r.Has, row.HasAccuracy, r.AccuracyDM, 10)
	return v
}

func number(has, bit row.Has, v int32, perUnit float64) *float64 {
	if has&bit == 0 {
		return nil
	}
	f := float64(v) / perUnit
	return &f
}

// Print prints the explanation for people: what stands, side by side, then each time
// that the fix came.
func (x *Explained) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s", x.Vehicle, x.DeviceTime.Format("2006-01-02T15:04:05.000Z"))
	switch {
	case x.Kind == "":
		b.WriteString(": no fix stands\n")
	case x.Verdict == "":
		fmt.Fprintf(&b, ": %s\n", x.Kind)
	default:
		fmt.Fprintf(&b, ": %s, the filter's verdict is %s\n", x.Kind, x.Verdict)
	}
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if x.Kind != "" {
		_, _ = fmt.Fprintln(out, "\tLATITUDE\tLONGITUDE\tSPEED\tHEADING\tACCURACY")
		for _, line := range []struct {
			name string
			*Values
		}{{"reported", x.Reported}, {"corrected", x.Corrected}, {"display", x.Display}} {
			if line.Values != nil {
				_, _ = fmt.Fprintf(out, "%s\t%s\n", line.name, line.text())
			}
		}
	}
	_ = out.Flush()
	switch n := len(x.Arrivals); n {
	case 0:
		b.WriteString("by which report it came is not on record\n")
	case 1:
		b.WriteString("it came once:\n")
	default:
		fmt.Fprintf(&b, "it came %d times:\n", n)
	}
	for i := range x.Arrivals {
		c := &x.Arrivals[i]
		fmt.Fprintf(&b, "  epoch %d, offset %d, session %d, sequence %d: %s", c.Epoch, c.Offset, c.Session, c.Sequence, c.Outcome)
		if c.because != "" {
			fmt.Fprintf(&b, ": %s", c.because)
		}
		b.WriteString("\n")
		if c.Reported != nil {
			fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(c.Reported.text(), "\t", "  "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (v *Values) text() string {
	optional := func(v *float64, unit string) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%g %s", *v, unit)
	}
	return fmt.Sprintf("%.7f\t%.7f\t%s\t%s\t%s", v.Latitude, v.Longitude, optional(v.SpeedMPS, "m/s"), optional(v.HeadingDeg, "deg"), optional(v.AccuracyM, "m"))
}
