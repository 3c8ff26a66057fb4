package liveindex

import (
	"sync/atomic"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Vehicle is one vehicle as a reader sees it. It is a copy; the attributes are
// shared and must not be changed.
type Vehicle struct {
	ID string
	// DeviceTimeMS is when the device took the newest fix, in milliseconds
	// since the Unix epoch. Zero means that the vehicle has no position: then
	// no field of the position means anything.
	DeviceTimeMS int64
	// SeenTimeMS is when the log took the vehicle's newest report.
	SeenTimeMS     int64
	LatDeg, LonDeg float64
	// Cell is the H3 cell of the position.
	Cell                                  uint64
	SpeedMPS, HeadingDeg                  float32
	HasSpeed, HasHeading                  bool
	VarEastM2, CovEastNorthM2, VarNorthM2 float32
	Verdict                               starlingv1.Verdict
	Availability                          starlingv1.Availability
	// Attributes is nil when the vehicle never reported any.
	Attributes *Attributes
	Counts     Counts
}

// Counts says what became of the vehicle's fixes. The three that count what
// went wrong stop at the largest number of 32 bits.
type Counts struct {
	Accepted                  int64
	Duplicate, Conflict, Late uint32
}

// vehicle is what stays the same while a vehicle moves.
type vehicle struct {
	id string
	// current is the number of the newest state plus one, 0 for a vehicle that
	// was removed.
	current atomic.Uint32
}

// state is one version of a vehicle. It holds no pointer, so that the garbage
// collector has nothing to look at. Once a reader can reach it, only leaf and
// place change, which are the writer's.
type state struct {
	born           uint64
	deviceTimeMS   int64
	seenTimeMS     int64
	latDeg, lonDeg float64
	cell           uint64
	accepted       int64
	duplicate      uint32
	conflict       uint32
	late           uint32
	speedMPS       float32
	headingDeg     float32
	varEastM2      float32
	covEastNorthM2 float32
	varNorthM2     float32
	vehicle        uint32
	attributes     uint32
	leaf           uint32 // number of the leaf that holds the entry
	place          uint32 // the entry's place in it
	availability   uint8
	verdict        uint8
	has            uint8
}

const (
	hasSpeed = 1 << iota
	hasHeading
	hasPosition // then there is an entry, and leaf and place say where
)

// read copies a state that the caller has pinned.
func (x *Index) read(s *state, v *Vehicle) {
	*v = Vehicle{
		ID:             x.vehicles.at(s.vehicle).id,
		DeviceTimeMS:   s.deviceTimeMS,
		SeenTimeMS:     s.seenTimeMS,
		LatDeg:         s.latDeg,
		LonDeg:         s.lonDeg,
		Cell:           s.cell,
		SpeedMPS:       s.speedMPS,
		HeadingDeg:     s.headingDeg,
		HasSpeed:       s.has&hasSpeed != 0,
		HasHeading:     s.has&hasHeading != 0,
		VarEastM2:      s.varEastM2,
		CovEastNorthM2: s.covEastNorthM2,
		VarNorthM2:     s.varNorthM2,
		Verdict:        starlingv1.Verdict(s.verdict),
		Availability:   starlingv1.Availability(s.availability),
		Counts:         Counts{Accepted: s.accepted, Duplicate: s.duplicate, Conflict: s.conflict, Late: s.late},
	}
	if s.attributes != noAttributes {
		v.Attributes = x.attrs.at(s.attributes)
	}
}
