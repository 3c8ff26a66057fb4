// Package row turns records of `tracks` into rows of history. It is pure: every
// sink of the history role writes the same rows, and a successor that reads the
// same records again makes the same rows.
package row

import (
	"cmp"
	"math"
	"slices"

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
)

// kindNames are as they stand in files; they are never changed.
var kindNames = map[Kind]string{Final: "final", Open: "open", Late: "late", SetAside: "set_aside"}

// String returns the kind as it stands in files.
func (k Kind) String() string { return kindNames[k] }

// ParseKind is the reverse of String; it returns false for an unknown name.
func ParseKind(s string) (Kind, bool) {
	for k, name := range kindNames {
		if name == s {
			return k, true
		}
	}
	return 0, false
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
	rows = appendPoints(rows, at, Open, t.Points)
	rows = appendPoints(rows, at, Final, t.FinalPoints)
	rows = appendFixes(rows, at, Late, t.LateFixes)
	rows = appendFixes(rows, at, SetAside, t.SetAsideFixes)
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

func appendFixes(rows []Fix, at Fix, kind Kind, fixes []wire.Fix) []Fix {
	for i := range fixes {
		rows = append(rows, received(at, kind, &fixes[i]))
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

// Compare orders rows by vehicle and device time, and the rows of one fix so that
// the truth is first: the least epoch, within it the least kind, within that the
// least offset.
func Compare(a, b Fix) int {
	return cmp.Or(
		cmp.Compare(a.Vehicle, b.Vehicle), cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS),
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.SourceOffset, b.SourceOffset),
	)
}

// Dedup sorts rows and leaves one for each fix, the truth. It returns the shortened
// slice.
func Dedup(rows []Fix) []Fix {
	slices.SortFunc(rows, Compare)
	return slices.CompactFunc(rows, func(a, b Fix) bool { return a.Vehicle == b.Vehicle && a.DeviceTimeMS == b.DeviceTimeMS })
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
