// Package wire holds the messages of the hot path as flat Go structs and
// encodes and decodes them in the protobuf wire format of starling.v1, byte for
// byte what the generated code in schemas/starlingv1 reads and writes (which is
// also its judge in the tests). It exists because generated structs cost an
// allocation for every optional field of every fix.
//
// Decoders accept whatever a protobuf decoder must accept (fields in any order,
// repeated scalar fields: last wins, unknown fields skipped) and answer
// anything else with an error, never a panic. Decoding reuses the slices of the
// struct it decodes into, so a struct may be kept for the next record; what
// must outlive it has to be copied.
package wire

import "github.com/starling-fleet/starling/schemas/starlingv1"

// Has is which optional fields of a fix are present.
type Has uint8

// The optional fields of a fix.
const (
	HasAccuracy Has = 1 << iota
	HasSpeed
	HasHeading
	HasAltitude
	HasMocked
)

// Fix is starlingv1.Fix. Optional fields mean something only when their bit is
// set in Has.
type Fix struct {
	DeviceTimeMS                               int64
	LatDeg, LonDeg                             float64
	AccuracyM, SpeedMPS, HeadingDeg, AltitudeM float32
	Has                                        Has
	Mocked                                     bool
}

// Attributes is starlingv1.Attributes.
type Attributes struct {
	Type  string
	Seats int32
	Tags  []string
}

// Report is starlingv1.Report.
type Report struct {
	VehicleID     string
	SessionID     uint64
	Sequence      int64
	Fixes         []Fix
	Availability  starlingv1.Availability
	HasAttributes bool
	Attributes    Attributes
}

// LocationKind is what a record of `locations` is.
type LocationKind uint8

// Kinds of records of `locations`.
const (
	KindUnknown LocationKind = iota
	KindReport
	KindTick
	KindVersionSwitch
	KindProposal
	KindRelease
	KindReasserted
	KindErasure
)

// Location is starlingv1.LocationRecord.
type Location struct {
	Kind LocationKind
	// Report is valid when Kind is KindReport. Its VehicleID is empty in the
	// log: the record's key holds it.
	Report Report
	// Switch is valid when Kind is KindVersionSwitch.
	Switch VersionSwitch
	// Proposal, Release and Reasserted are valid when Kind states it.
	Proposal   Proposal
	Release    Release
	Reasserted Reasserted
	// Erasure is valid when Kind is KindErasure.
	Erasure Erasure
}

// Erasure is starlingv1.Erasure.
type Erasure struct{ UntilMS int64 }

// VersionSwitch is starlingv1.VersionSwitch.
type VersionSwitch struct {
	StepVersion  int32
	Settings     []byte
	GoldenDigest []byte
}

// FixCounts is starlingv1.FixCounts.
type FixCounts struct {
	Accepted, Duplicate, Conflict, Late, SetAside, Refused int64
}

// Estimate is the filter's answer as it is published: where a vehicle was at
// one fix, how fast, and how sure that is.
type Estimate struct {
	LatDeg, LonDeg                        float64
	SpeedMPS, HeadingDeg                  float32
	HasSpeed, HasHeading                  bool
	VarEastM2, CovEastNorthM2, VarNorthM2 float32
	Verdict                               starlingv1.Verdict
	// DisplayLatDeg and DisplayLonDeg are the display track at the fix.
	DisplayLatDeg, DisplayLonDeg float64
}

// Diagnosis is starlingv1.DeviceDiagnosis. One that is all zero stands for none.
type Diagnosis struct {
	AccuracyScale, VelocityCredibility       float32
	HasAccuracyScale, HasVelocityCredibility bool
	BiasM, OutlierShare                      float32
}

// View is starlingv1.VehicleView.
type View struct {
	VehicleID string
	// DeviceTimeMS is zero when the vehicle has no position yet.
	DeviceTimeMS int64
	SeenTimeMS   int64
	Estimate
	Cell         uint64
	Availability starlingv1.Availability
	// HasAttributes is false when the vehicle never reported any.
	HasAttributes bool
	Attributes    Attributes
	Counts        FixCounts
	// DerivedAvailability is zero when it is the reported one.
	DerivedAvailability       starlingv1.Availability
	Dispatchable, Conflicting bool
	// DeviceClockAheadMS is zero when nothing is known of the device's clock.
	DeviceClockAheadMS int64
	// OdometerM is the length of the display track.
	OdometerM float64
	Diagnosis Diagnosis
	// Reservation is nil when the vehicle has none. What it points to never
	// changes, so views may share it.
	Reservation *Reservation
}

// TrackPoint is starlingv1.TrackPoint.
type TrackPoint struct {
	Fix Fix
	Estimate
	NormalisedDistance float32
}

// Fired is starlingv1.VehicleDue.
type Fired struct {
	VehicleID   string
	HasLive     bool
	Live        View
	FinalPoints []TrackPoint
	Forgotten   bool
}

// Track is starlingv1.TrackRecord.
type Track struct {
	Epoch                int64
	SourceOffset         int64
	PreviousSourceOffset int64
	ClockMS              int64
	Counts               FixCounts
	HasLive              bool
	Live                 View
	Points               []TrackPoint
	FinalPoints          []TrackPoint
	LateFixes            []Fix
	Fired                []Fired
	SetAsideFixes        []Fix
	// AppendTimeMS is zero when it equals ClockMS.
	AppendTimeMS int64
	// Refusal is why the source record's report was refused, zero when it was not.
	Refusal starlingv1.Refusal
	// SessionID and Sequence are the source report's.
	SessionID uint64
	Sequence  int64
	Outcomes  []FixOutcome
	// LateRules and SetAsideRules belong to LateFixes and SetAsideFixes.
	LateRules, SetAsideRules []starlingv1.OutcomeRule
	// ErasedUntilMS is zero when the source record is no erasure.
	ErasedUntilMS int64
}

// FixOutcome is starlingv1.FixOutcome.
type FixOutcome struct {
	Rule starlingv1.OutcomeRule
	Fix  Fix
}

// FixRefusal is starlingv1.FixRefusal.
type FixRefusal struct {
	ReportNumber int64
	Sequence     int64
	FixIndex     int32
	Field        string
	Reason       starlingv1.RefusalReason
	Description  string
}

// Ack is starlingv1.StreamReportsResponse.
type Ack struct {
	AcknowledgedReports  int64
	AcknowledgedSequence int64
	Refusals             []FixRefusal
}
