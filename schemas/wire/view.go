package wire

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func (v *View) append(b []byte) []byte {
	b = protoappend.String(b, 1, v.VehicleID)
	b = protoappend.Varint(b, 2, uint64(v.DeviceTimeMS))
	b = protoappend.Varint(b, 3, uint64(v.SeenTimeMS))
	b = protoappend.Double(b, 4, v.LatDeg)
	b = protoappend.Double(b, 5, v.LonDeg)
	if v.HasSpeed {
		b = protoappend.OptionalFloat(b, 6, v.SpeedMPS)
	}
	if v.HasHeading {
		b = protoappend.OptionalFloat(b, 7, v.HeadingDeg)
	}
	b = protoappend.Float(b, 8, v.VarEastM2)
	b = protoappend.Float(b, 9, v.CovEastNorthM2)
	b = protoappend.Float(b, 10, v.VarNorthM2)
	b = protoappend.Fixed64(b, 11, v.Cell)
	b = protoappend.Varint(b, 12, uint64(int64(v.Availability)))
	if v.HasAttributes {
		var start int
		b, start = protoappend.Open(b, 13)
		b = protoappend.Close(v.Attributes.append(b), start)
	}
	b = v.Counts.appendField(b, 14)
	b = protoappend.Varint(b, 15, uint64(int64(v.Verdict)))
	b = protoappend.Varint(b, 16, uint64(int64(v.DerivedAvailability)))
	if v.Dispatchable {
		b = protoappend.OptionalBool(b, 17, true)
	}
	if v.Conflicting {
		b = protoappend.OptionalBool(b, 18, true)
	}
	b = protoappend.Varint(b, 19, protowire.EncodeZigZag(v.DeviceClockAheadMS))
	b = protoappend.Double(b, 20, v.DisplayLatDeg)
	b = protoappend.Double(b, 21, v.DisplayLonDeg)
	b = protoappend.Double(b, 22, v.OdometerM)
	b = v.Diagnosis.appendField(b, 23)
	return v.Reservation.appendField(b, 24)
}

// appendField writes the diagnosis as a sub-message, and nothing when it is all
// zero.
func (d *Diagnosis) appendField(b []byte, field protoappend.Number) []byte {
	if *d == (Diagnosis{}) {
		return b
	}
	b, start := protoappend.Open(b, field)
	if d.HasAccuracyScale {
		b = protoappend.OptionalFloat(b, 1, d.AccuracyScale)
	}
	if d.HasVelocityCredibility {
		b = protoappend.OptionalFloat(b, 2, d.VelocityCredibility)
	}
	b = protoappend.Float(b, 3, d.BiasM)
	b = protoappend.Float(b, 4, d.OutlierShare)
	return protoappend.Close(b, start)
}

func (d *Diagnosis) merge(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeFixed32:
			d.AccuracyScale, d.HasAccuracyScale = float32Of(s.num), true
		case 2<<3 | typeFixed32:
			d.VelocityCredibility, d.HasVelocityCredibility = float32Of(s.num), true
		case 3<<3 | typeFixed32:
			d.BiasM = float32Of(s.num)
		case 4<<3 | typeFixed32:
			d.OutlierShare = float32Of(s.num)
		}
	}
	return s.err
}

// viewStrings are the strings of the view that a struct held before, to be used
// again when the next one has the same.
type viewStrings struct{ vehicleID, vehicleType string }

// reset empties v but keeps its capacity.
func (v *View) reset() viewStrings {
	old := viewStrings{v.VehicleID, v.Attributes.Type}
	attributes := v.Attributes
	attributes.reset()
	*v = View{Attributes: attributes}
	return old
}

func (v *View) merge(b []byte, old *viewStrings) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&v.VehicleID, old.vehicleID)
		case 2<<3 | typeVarint:
			v.DeviceTimeMS = int64(s.num)
		case 3<<3 | typeVarint:
			v.SeenTimeMS = int64(s.num)
		case 4<<3 | typeFixed64:
			v.LatDeg = math.Float64frombits(s.num)
		case 5<<3 | typeFixed64:
			v.LonDeg = math.Float64frombits(s.num)
		case 6<<3 | typeFixed32:
			v.SpeedMPS, v.HasSpeed = float32Of(s.num), true
		case 7<<3 | typeFixed32:
			v.HeadingDeg, v.HasHeading = float32Of(s.num), true
		case 8<<3 | typeFixed32:
			v.VarEastM2 = float32Of(s.num)
		case 9<<3 | typeFixed32:
			v.CovEastNorthM2 = float32Of(s.num)
		case 10<<3 | typeFixed32:
			v.VarNorthM2 = float32Of(s.num)
		case 11<<3 | typeFixed64:
			v.Cell = s.num
		case 12<<3 | typeVarint:
			v.Availability = starlingv1.Availability(int32(s.num))
		case 13<<3 | typeBytes:
			v.HasAttributes = true
			s.invalid(v.Attributes.merge(s.data, old.vehicleType))
		case 14<<3 | typeBytes:
			s.invalid(v.Counts.merge(s.data))
		case 15<<3 | typeVarint:
			v.Verdict = starlingv1.Verdict(int32(s.num))
		default:
			v.mergeDerived(&s)
		}
	}
	return s.err
}

// mergeDerived takes the current field if it is one of what the step derives.
func (v *View) mergeDerived(s *scanner) {
	switch s.tag {
	case 16<<3 | typeVarint:
		v.DerivedAvailability = starlingv1.Availability(int32(s.num))
	case 17<<3 | typeVarint:
		v.Dispatchable = s.num != 0
	case 18<<3 | typeVarint:
		v.Conflicting = s.num != 0
	case 19<<3 | typeVarint:
		v.DeviceClockAheadMS = protowire.DecodeZigZag(s.num)
	case 20<<3 | typeFixed64:
		v.DisplayLatDeg = math.Float64frombits(s.num)
	case 21<<3 | typeFixed64:
		v.DisplayLonDeg = math.Float64frombits(s.num)
	case 22<<3 | typeFixed64:
		v.OdometerM = math.Float64frombits(s.num)
	case 23<<3 | typeBytes:
		s.invalid(v.Diagnosis.merge(s.data))
	case 24<<3 | typeBytes:
		if v.Reservation == nil {
			v.Reservation = &Reservation{}
		}
		s.invalid(v.Reservation.merge(s.data))
	}
}
