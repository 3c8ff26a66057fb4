package liveindex

import (
	"math"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Vehicle is one vehicle as a reader sees it. It is a copy; the attributes are
// shared and must not be changed.
type Vehicle struct {
	ID string
	// DeviceTimeMS is when the device took the newest fix, in milliseconds
	// since the Unix epoch. Zero means that the vehicle has no position: then
	// no field of the position means anything.
	DeviceTimeMS int64
	// DeviceClockAheadMS is how far the device's clock is ahead of the log's, 0
	// if nothing is known.
	DeviceClockAheadMS int64
	// SeenTimeMS is when the log took the vehicle's newest report.
	SeenTimeMS     int64
	LatDeg, LonDeg float64
	// Cell is the H3 cell of the position.
	Cell                                  h3.Cell
	SpeedMPS, HeadingDeg                  float32
	HasSpeed, HasHeading                  bool
	VarEastM2, CovEastNorthM2, VarNorthM2 float32
	Verdict                               starlingv1.Verdict
	// Availability is the reported one. DerivedAvailability is what the
	// vehicle's ride makes of it, the reported one without a ride.
	Availability, DerivedAvailability starlingv1.Availability
	// Dispatchable is the tracker's judgement when it published the view: a
	// reader compares the age of the newest fix as well.
	Dispatchable bool
	// Conflicting means that two devices report for the vehicle.
	Conflicting bool
	// Attributes is nil when the vehicle never reported any.
	Attributes *Attributes
	Counts     Counts
	// Learned is set by GetWhole and Page only.
	Learned *Learned
}

// Learned is what the filter has made of all of a vehicle's fixes.
type Learned struct {
	// DisplayLatDeg and DisplayLonDeg are the display track at the newest fix,
	// to 1e-7 degrees (11 mm); both are 0 when it is not known.
	DisplayLatDeg, DisplayLonDeg float64
	// OdometerM is the length of the display track, to 0.1 m.
	OdometerM float64
	Diagnosis Diagnosis
}

// FixTimeMS is when the newest fix was taken, in milliseconds since the Unix
// epoch by the log's clock: the device's time without its clock's error.
func (v *Vehicle) FixTimeMS() int64 { return v.DeviceTimeMS - v.DeviceClockAheadMS }

// Diagnosis is what the filter has learned of a device.
type Diagnosis struct {
	// AccuracyScale is how many times larger the errors are than the stated
	// accuracy, to 2 %; 0 when it is not known.
	AccuracyScale float32
	// VelocityCredibility is how far the reported velocity predicts the next
	// positions, 0 to 1, to 0.4 %; it means something if HasVelocity.
	VelocityCredibility float32
	HasVelocity         bool
	// BiasM is the size in metres of the slowly changing error, to 0.1 m.
	BiasM float32
	// OutlierShare is the share of fixes that were not used, 0 to 1, to 0.4 %.
	OutlierShare float32
}

// Counts are what became of the vehicle's fixes, each up to the largest number
// of 32 bits.
type Counts struct {
	Accepted, Duplicate, Conflict, Late, SetAside uint32
}

// vehicle is what stays the same while a vehicle moves: 16 bytes.
type vehicle struct {
	first  *byte // of the id
	length uint32
	// current is the number of the newest state plus one, 0 for a vehicle that
	// was removed.
	current atomic.Uint32
}

func (v *vehicle) id() string { return unsafe.String(v.first, v.length) }

// setID keeps a copy of an id, or nothing of an empty one.
func (v *vehicle) setID(id string) {
	kept := strings.Clone(id)
	v.first, v.length = unsafe.StringData(kept), uint32(len(kept))
}

// state is one version of a vehicle: 128 bytes, two cache lines. It holds no
// pointer, so that the garbage collector has nothing to look at. Once a reader
// can reach it, only leaf and place change, which are the writer's.
type state struct {
	born           uint64
	deviceTimeMS   int64
	seenTimeMS     int64
	latDeg, lonDeg float64
	cell           h3.Cell
	vehicle        uint32
	attributes     uint32
	leaf           uint32 // number of the leaf that holds the entry
	place          uint32 // the entry's place in it
	clockAheadMS   int32
	speedMPS       float32
	headingDeg     float32
	varEastM2      float32
	covEastNorthM2 float32
	varNorthM2     float32
	accepted       uint32
	duplicate      uint32
	conflict       uint32
	late           uint32
	setAside       uint32
	displayLatE7   int32  // degrees, times 1e7
	displayLonE7   int32  // degrees, times 1e7
	odometerDM     uint32 // decimetres
	biasDM         uint16 // decimetres
	accuracyScale  uint8  // 0: none; else 2^((n-128)/scaleSteps)
	credibility    uint8  // 0: none; else (n-1)/254
	outlierShare   uint8  // n/255
	availability   uint8  // the reported one in the low bits, the derived one above
	verdict        uint8
	has            uint8
}

const (
	hasSpeed = 1 << iota
	hasHeading
	hasPosition // then there is an entry, and leaf and place locate it
	isDispatchable
	isConflicting
)

// scaleSteps is how many steps an accuracy scale is kept in as it doubles.
const scaleSteps = 16

func (s *state) reported() starlingv1.Availability {
	return starlingv1.Availability(s.availability & (1<<availabilityBits - 1))
}

func (s *state) derived() starlingv1.Availability {
	return starlingv1.Availability(s.availability >> availabilityBits)
}

// fixTimeMS is when the newest fix was taken by the log's clock.
func (s *state) fixTimeMS() int64 { return s.deviceTimeMS - int64(s.clockAheadMS) }

// kind is what an entry keeps for filters: the derived availability, whether
// the vehicle is dispatchable, and the number of its attributes.
func (s *state) kind() uint32 {
	k := s.attributes<<kindBits | uint32(s.derived())
	if s.has&isDispatchable != 0 {
		k |= dispatchableKind
	}
	return k
}

// fill sets what a view states.
func (x *Index) fill(s *state, v *wire.View, old *state) {
	hint := uint32(noAttributes)
	if old != nil {
		hint = old.attributes
	}
	s.deviceTimeMS, s.seenTimeMS, s.clockAheadMS = v.DeviceTimeMS, v.SeenTimeMS, clockAhead(v)
	s.latDeg, s.lonDeg, s.cell = v.LatDeg, v.LonDeg, h3.Cell(v.Cell)
	s.speedMPS, s.headingDeg = v.SpeedMPS, v.HeadingDeg
	s.varEastM2, s.covEastNorthM2, s.varNorthM2 = v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2
	c := &v.Counts
	s.accepted, s.duplicate, s.conflict, s.late, s.setAside = clip(c.Accepted), clip(c.Duplicate), clip(c.Conflict), clip(c.Late), clip(c.SetAside)
	s.attributes = x.attrs.intern(v.HasAttributes, &v.Attributes, hint)
	derived := v.DerivedAvailability
	if derived == starlingv1.Availability_AVAILABILITY_UNSPECIFIED {
		derived = v.Availability
	}
	s.availability, s.verdict, s.has = uint8(v.Availability)|uint8(derived)<<availabilityBits, uint8(v.Verdict), 0
	s.set(hasSpeed, v.HasSpeed)
	s.set(hasHeading, v.HasHeading)
	s.set(isDispatchable, v.Dispatchable && derived == starlingv1.Availability_AVAILABILITY_FREE)
	s.set(isConflicting, v.Conflicting)
	s.displayLatE7, s.displayLonE7 = e7(v.DisplayLatDeg), e7(v.DisplayLonDeg)
	s.odometerDM = clip(rounded(v.OdometerM * 10))
	s.fillDiagnosis(v)
}

// fillDiagnosis keeps what the filter has learned, rounded as Diagnosis states.
func (s *state) fillDiagnosis(v *wire.View) {
	s.accuracyScale, s.credibility = 0, 0
	d := &v.Diagnosis
	if d.HasAccuracyScale && d.AccuracyScale > 0 {
		s.accuracyScale = uint8(within(rounded(scaleSteps*math.Log2(float64(d.AccuracyScale)))+128, 1, 255))
	}
	if d.HasVelocityCredibility {
		s.credibility = uint8(1 + within(rounded(254*float64(d.VelocityCredibility)), 0, 254))
	}
	s.biasDM = uint16(within(rounded(10*float64(d.BiasM)), 0, math.MaxUint16))
	s.outlierShare = uint8(within(rounded(255*float64(d.OutlierShare)), 0, 255))
}

func (s *state) set(bit uint8, on bool) {
	if on {
		s.has |= bit
	}
}

// clockAhead is how far the device's clock is ahead of the log's. The tracker
// learns it from the quickest reports; whatever it has learned, a fix was not
// taken after the log had the report that it came with.
func clockAhead(v *wire.View) int32 {
	ahead := v.DeviceClockAheadMS
	if v.SeenTimeMS > 0 && v.DeviceTimeMS > 0 {
		ahead = max(ahead, v.DeviceTimeMS-v.SeenTimeMS)
	}
	return int32(within(ahead, math.MinInt32, math.MaxInt32))
}

func clip(n int64) uint32 { return uint32(within(n, 0, math.MaxUint32)) }

func within(n, least, most int64) int64 { return max(least, min(n, most)) }

// rounded is the nearest whole number, 0 for NaN.
func rounded(v float64) int64 {
	const most = 1 << 53
	if v != v {
		return 0
	}
	return int64(math.Round(max(-most, min(v, most))))
}

func e7(deg float64) int32 { return int32(within(rounded(deg*1e7), -1_800_000_000, 1_800_000_000)) }

// read copies a state that the caller has pinned.
func (x *Index) read(s *state, v *Vehicle) {
	*v = Vehicle{
		ID:                  x.vehicles.at(s.vehicle).id(),
		DeviceTimeMS:        s.deviceTimeMS,
		DeviceClockAheadMS:  int64(s.clockAheadMS),
		SeenTimeMS:          s.seenTimeMS,
		LatDeg:              s.latDeg,
		LonDeg:              s.lonDeg,
		Cell:                s.cell,
		SpeedMPS:            s.speedMPS,
		HeadingDeg:          s.headingDeg,
		HasSpeed:            s.has&hasSpeed != 0,
		HasHeading:          s.has&hasHeading != 0,
		VarEastM2:           s.varEastM2,
		CovEastNorthM2:      s.covEastNorthM2,
		VarNorthM2:          s.varNorthM2,
		Verdict:             starlingv1.Verdict(s.verdict),
		Availability:        s.reported(),
		DerivedAvailability: s.derived(),
		Dispatchable:        s.has&isDispatchable != 0,
		Conflicting:         s.has&isConflicting != 0,
		Counts:              Counts{Accepted: s.accepted, Duplicate: s.duplicate, Conflict: s.conflict, Late: s.late, SetAside: s.setAside},
	}
	if s.attributes != noAttributes {
		v.Attributes = x.attrs.at(s.attributes)
	}
}

// readWhole does so with what the filter has learned.
func (x *Index) readWhole(s *state, v *Vehicle) {
	x.read(s, v)
	v.Learned = &Learned{
		DisplayLatDeg: float64(s.displayLatE7) / 1e7,
		DisplayLonDeg: float64(s.displayLonE7) / 1e7,
		OdometerM:     float64(s.odometerDM) / 10,
	}
	d := &v.Learned.Diagnosis
	if s.accuracyScale != 0 {
		d.AccuracyScale = float32(math.Exp2((float64(s.accuracyScale) - 128) / scaleSteps))
	}
	if s.credibility != 0 {
		d.HasVelocity, d.VelocityCredibility = true, float32(s.credibility-1)/254
	}
	d.BiasM, d.OutlierShare = float32(s.biasDM)/10, float32(s.outlierShare)/255
}
