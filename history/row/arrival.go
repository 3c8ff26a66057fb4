package row

import (
	"cmp"
	"slices"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// arrivalOf adds to a row the report that a track answers.
func arrivalOf(at Fix, t *wire.Track) Fix {
	if t.SessionID != 0 {
		at.Has |= HasArrival
		at.Session, at.Sequence, at.ArrivalOffset = t.SessionID, t.Sequence, t.SourceOffset
	}
	return at
}

func appendOutcomes(rows []Fix, at Fix, outcomes []wire.FixOutcome) []Fix {
	for i := range outcomes {
		o := &outcomes[i]
		r := received(at, kindOf(o.Rule), &o.Fix)
		r.Rule = o.Rule
		rows = append(rows, r)
	}
	return rows
}

// kindOf is the kind of a fix that is published with its rule alone. What a later step
// may add is refused, as far as this version can tell.
func kindOf(rule starlingv1.OutcomeRule) Kind {
	switch rule {
	case starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT, starlingv1.OutcomeRule_OUTCOME_RULE_KNOWN_REPORT:
		return Duplicate
	case starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT:
		return Conflict
	}
	return Refused
}

// Arrival is one time that a fix came.
type Arrival struct {
	// Epoch and Offset are the record of `locations` by which it came.
	Epoch, Offset int64
	// Session and Sequence are the report's.
	Session  uint64
	Sequence int64
	// Rule is why it was not accepted, unspecified if it was.
	Rule starlingv1.OutcomeRule
	// Reported is what came, of a fix that does not stand: a duplicate, a conflict or
	// one that was refused. Otherwise it is zero.
	Reported Reported
}

// Reported is what a device reported of a fix. Values whose bit is not set in Has are
// zero.
type Reported struct {
	Position    Position
	Has         Has
	SpeedCMPS   int32
	HeadingDDeg int32
	AccuracyDM  int32
	AltitudeDM  int32
	Mocked      bool
}

// reportedBits are the optional values that a device reports.
const reportedBits = HasRawSpeed | HasRawHeading | HasAccuracy | HasAltitude | HasMocked

// Arrival returns by what a row's fix came, false if the row does not say.
func (f *Fix) Arrival() (Arrival, bool) {
	if f.Has&HasArrival == 0 {
		return Arrival{}, false
	}
	a := Arrival{Epoch: f.Epoch, Offset: f.ArrivalOffset, Session: f.Session, Sequence: f.Sequence, Rule: f.Rule}
	if !f.Kind.Stands() {
		a.Reported = f.Reported()
	}
	return a, true
}

// Reported returns what the device reported.
func (f *Fix) Reported() Reported {
	return Reported{f.Raw, f.Has & reportedBits, f.RawSpeedCMPS, f.RawHeadingDDeg, f.AccuracyDM, f.AltitudeDM, f.Mocked}
}

// compareArrivals orders arrivals of one fix as they came.
func compareArrivals(a, b Arrival) int {
	x, y := &a.Reported, &b.Reported
	return cmp.Or(
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Rule, b.Rule), cmp.Compare(x.Has, y.Has),
		cmp.Compare(x.Position.LatE7, y.Position.LatE7), cmp.Compare(x.Position.LonE7, y.Position.LonE7),
		cmp.Compare(x.SpeedCMPS, y.SpeedCMPS), cmp.Compare(x.HeadingDDeg, y.HeadingDDeg), cmp.Compare(x.AccuracyDM, y.AccuracyDM), cmp.Compare(x.AltitudeDM, y.AltitudeDM),
	)
}

// Arrivals returns the arrivals that rows of one fix name, as they came, each once.
func Arrivals(rows []Fix) (out []Arrival) {
	for i := range rows {
		if a, ok := rows[i].Arrival(); ok {
			out = append(out, a)
		}
	}
	return SortArrivals(out)
}

// SortArrivals orders arrivals of one fix as they came and leaves each once. It returns
// the shortened slice.
func SortArrivals(arrivals []Arrival) []Arrival {
	slices.SortFunc(arrivals, compareArrivals)
	return slices.Compact(arrivals)
}
