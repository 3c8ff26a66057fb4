// Package row turns records of `tracks` into rows of history. It is pure: every
// sink of the history role writes the same rows, and a successor that reads the
// same records again makes the same rows.
package row

import (
	"math"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Kind is what a row stands for.
type Kind uint8

// The kinds, the one that stands for the fix first: among the rows of one fix in
// one epoch the least kind is the truth.
const (
	// Final is a fix whose reorder window has closed.
	Final Kind = iota + 1
	// Open is a fix as the tracker saw it when it came; it stands until its Final
	// row replaces it, for good if an epoch was raised in between.
	Open
	// Late is a fix that came after its window had closed, as received.
	Late
	// SetAside is a fix stamped ahead of its device's clock, or of a session that
	// was shut out, as received.
	SetAside
	// Conflict is a fix whose device time another one with other content had taken, as
	// received. It, Duplicate and Refused stand for no fix: they say what came, and no
	// reader of tracks counts them.
	Conflict
	// Duplicate is a copy of a fix, or one of a report that was there before, as received.
	Duplicate
	// Refused is a fix of a report that the tracker has refused as a whole, as received.
	Refused
)

// Stands returns whether a row of the kind may be the truth of its fix.
func (k Kind) Stands() bool { return k >= Final && k <= SetAside }

// kindNames are as they stand in files; they are never changed.
var kindNames = map[Kind]string{Final: "final", Open: "open", Late: "late", SetAside: "set_aside", Conflict: "conflict", Duplicate: "duplicate", Refused: "refused"}

var kindsByName = func() map[string]Kind {
	all := map[string]Kind{}
	for k, name := range kindNames {
		all[name] = k
	}
	return all
}()

// String returns the kind as it stands in files.
func (k Kind) String() string { return kindNames[k] }

// ParseKind is the reverse of String; it returns false for an unknown name.
func ParseKind(s string) (Kind, bool) {
	k, ok := kindsByName[s]
	return k, ok
}

// Has is which optional values of a row are present.
type Has uint16

// The optional values.
const (
	HasRawSpeed Has = 1 << iota
	HasRawHeading
	HasAccuracy
	HasAltitude
	HasMocked
	// HasEstimate stands for the corrected position, the display position and the
	// verdict: Final and Open rows have them.
	HasEstimate
	HasSpeed
	HasHeading
	// HasArrival stands for Session, Sequence and ArrivalOffset. Rows of step versions
	// before 3 lack them, and Final ones whose Open row is not in the same batch.
	HasArrival
)

// Position is WGS84 in units of 1e-7 degree, about 1 cm.
type Position struct{ LatE7, LonE7 int32 }

// Fix is one row. Values whose bit is not set in Has are zero.
type Fix struct {
	// Vehicle is the vehicle id; with DeviceTimeMS it is the identity of the fix.
	Vehicle string
	// DeviceTimeMS is in milliseconds since the Unix epoch, UTC.
	DeviceTimeMS int64
	// Epoch, Partition and SourceOffset say which record of `locations` made the
	// row: for a Final one the record by which the window closed.
	Epoch        int64
	Partition    int32
	SourceOffset int64
	Kind         Kind
	Has          Has

	// What the device reported: position, speed in cm/s, heading in 0.1 degree
	// [0, 3600), accuracy and altitude in dm.
	Raw            Position
	RawSpeedCMPS   int32
	RawHeadingDDeg int32
	AccuracyDM     int32
	AltitudeDM     int32
	Mocked         bool
	Verdict        starlingv1.Verdict
	Corrected      Position // the live estimate
	Display        Position // the display track
	SpeedCMPS      int32    // corrected
	HeadingDDeg    int32    // corrected

	// Session and Sequence are those of the report by which the fix came, and
	// ArrivalOffset is its record of `locations`.
	Session       uint64
	Sequence      int64
	ArrivalOffset int64
	// Rule is why the fix was not accepted; unspecified for Final and Open rows.
	Rule starlingv1.OutcomeRule
}

// Shown is the position that stands for the fix on a map: the corrected one if there
// is one, else the raw one.
func (f *Fix) Shown() Position {
	if f.Has&HasEstimate != 0 {
		return f.Corrected
	}
	return f.Raw
}

// Append appends the rows of one record of a partition of `tracks`, whose key is
// the vehicle of its own fixes.
func Append(rows []Fix, partition int32, vehicle string, t *wire.Track) []Fix {
	at := Fix{Epoch: t.Epoch, Partition: partition, SourceOffset: t.SourceOffset}
	at.Vehicle = vehicle
	came := arrivalOf(at, t)
	rows = appendPoints(rows, came, Open, t.Points)
	rows = appendPoints(rows, at, Final, t.FinalPoints)
	rows = appendFixes(rows, came, Late, t.LateFixes, t.LateRules)
	rows = appendFixes(rows, came, SetAside, t.SetAsideFixes, t.SetAsideRules)
	rows = appendOutcomes(rows, came, t.Outcomes)
	for i := range t.Fired {
		at.Vehicle = t.Fired[i].VehicleID
		rows = appendPoints(rows, at, Final, t.Fired[i].FinalPoints)
	}
	return rows
}

func appendPoints(rows []Fix, at Fix, kind Kind, points []wire.TrackPoint) []Fix {
	for i := range points {
		p := &points[i]
		r := received(at, kind, &p.Fix)
		r.Has |= HasEstimate
		r.Verdict = p.Verdict
		r.Corrected = position(p.LatDeg, p.LonDeg)
		r.Display = position(p.DisplayLatDeg, p.DisplayLonDeg)
		if p.HasSpeed {
			r.Has |= HasSpeed
			r.SpeedCMPS = scaled(float64(p.SpeedMPS), 100)
		}
		if p.HasHeading {
			r.Has |= HasHeading
			r.HeadingDDeg = heading(p.HeadingDeg)
		}
		rows = append(rows, r)
	}
	return rows
}

func appendFixes(rows []Fix, at Fix, kind Kind, fixes []wire.Fix, rules []starlingv1.OutcomeRule) []Fix {
	for i := range fixes {
		r := received(at, kind, &fixes[i])
		if len(rules) == len(fixes) {
			r.Rule = rules[i]
		}
		rows = append(rows, r)
	}
	return rows
}

// received is a row with what the device reported.
func received(r Fix, kind Kind, f *wire.Fix) Fix {
	r.Kind, r.DeviceTimeMS, r.Raw = kind, f.DeviceTimeMS, position(f.LatDeg, f.LonDeg)
	if f.Has&wire.HasSpeed != 0 {
		r.Has |= HasRawSpeed
		r.RawSpeedCMPS = scaled(float64(f.SpeedMPS), 100)
	}
	if f.Has&wire.HasHeading != 0 {
		r.Has |= HasRawHeading
		r.RawHeadingDDeg = heading(f.HeadingDeg)
	}
	if f.Has&wire.HasAccuracy != 0 {
		r.Has |= HasAccuracy
		r.AccuracyDM = scaled(float64(f.AccuracyM), 10)
	}
	if f.Has&wire.HasAltitude != 0 {
		r.Has |= HasAltitude
		r.AltitudeDM = scaled(float64(f.AltitudeM), 10)
	}
	if f.Has&wire.HasMocked != 0 {
		r.Has |= HasMocked
		r.Mocked = f.Mocked
	}
	return r
}

func position(latDeg, lonDeg float64) Position {
	return Position{scaled(latDeg, 1e7), scaled(lonDeg, 1e7)}
}

// scaled rounds a value to a whole number of units; what no int32 holds becomes
// the nearest that one does.
func scaled(v, perUnit float64) int32 {
	v = math.Round(v * perUnit)
	if math.IsNaN(v) {
		return 0
	}
	return int32(max(math.MinInt32, min(math.MaxInt32, v)))
}

// heading rounds to 0.1 degree within [0, 3600).
func heading(deg float32) int32 {
	d := scaled(float64(deg), 10) % 3600
	if d < 0 {
		d += 3600
	}
	return d
}

// Period is the number of the period of a length, both in milliseconds, that a time
// falls into, counted from the Unix epoch; periods before it have negative numbers.
func Period(atMS, lengthMS int64) int64 {
	n := atMS / lengthMS
	if atMS%lengthMS < 0 {
		n--
	}
	return n
}
