package wire

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func (v *View) append(b []byte) []byte {
	b = appendString(b, tagOf(1, typeBytes), v.VehicleID)
	b = appendVarint(b, tagOf(2, typeVarint), uint64(v.DeviceTimeMS))
	b = appendVarint(b, tagOf(3, typeVarint), uint64(v.SeenTimeMS))
	b = appendDouble(b, tagOf(4, typeFixed64), v.LatDeg)
	b = appendDouble(b, tagOf(5, typeFixed64), v.LonDeg)
	if v.HasSpeed {
		b = appendOptionalFloat(b, tagOf(6, typeFixed32), v.SpeedMPS)
	}
	if v.HasHeading {
		b = appendOptionalFloat(b, tagOf(7, typeFixed32), v.HeadingDeg)
	}
	b = appendFloat(b, tagOf(8, typeFixed32), v.VarEastM2)
	b = appendFloat(b, tagOf(9, typeFixed32), v.CovEastNorthM2)
	b = appendFloat(b, tagOf(10, typeFixed32), v.VarNorthM2)
	b = appendFixed64(b, tagOf(11, typeFixed64), v.Cell)
	b = appendVarint(b, tagOf(12, typeVarint), uint64(int64(v.Availability)))
	if v.HasAttributes {
		var start int
		b, start = openMessage(b, tagOf(13, typeBytes))
		b = closeMessage(v.Attributes.append(b), start)
	}
	b = v.Counts.appendField(b, tagOf(14, typeBytes))
	b = appendVarint(b, tagOf(15, typeVarint), uint64(int64(v.Verdict)))
	b = appendVarint(b, tagOf(16, typeVarint), uint64(int64(v.DerivedAvailability)))
	if v.Dispatchable {
		b = appendBool(b, tagOf(17, typeVarint), true)
	}
	if v.Conflicting {
		b = appendBool(b, tagOf(18, typeVarint), true)
	}
	b = appendVarint(b, tagOf(19, typeVarint), protowire.EncodeZigZag(v.DeviceClockAheadMS))
	b = appendDouble(b, tagOf(20, typeFixed64), v.DisplayLatDeg)
	b = appendDouble(b, tagOf(21, typeFixed64), v.DisplayLonDeg)
	b = appendDouble(b, tagOf(22, typeFixed64), v.OdometerM)
	return v.Diagnosis.appendField(b, tagOf(23, typeBytes))
}

// appendField writes the diagnosis as a sub-message, and nothing when it is all
// zero.
func (d *Diagnosis) appendField(b []byte, field tag) []byte {
	if *d == (Diagnosis{}) {
		return b
	}
	b, start := openMessage(b, field)
	if d.HasAccuracyScale {
		b = appendOptionalFloat(b, tagOf(1, typeFixed32), d.AccuracyScale)
	}
	if d.HasVelocityCredibility {
		b = appendOptionalFloat(b, tagOf(2, typeFixed32), d.VelocityCredibility)
	}
	b = appendFloat(b, tagOf(3, typeFixed32), d.BiasM)
	b = appendFloat(b, tagOf(4, typeFixed32), d.OutlierShare)
	return closeMessage(b, start)
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

// reset empties v but keeps its room.
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
		}
	}
	return s.err
}
