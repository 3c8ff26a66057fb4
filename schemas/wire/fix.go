package wire

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-fleet/starling/schemas/protoappend"
)

// maxFixBytes is the most that one fix takes as a field of a report: tag and
// length, a ten-byte varint, two doubles, four floats and a bool with their tags.
const maxFixBytes = 2 + 11 + 2*9 + 4*5 + 2

func (f *Fix) append(b []byte) []byte {
	b = protoappend.Varint(b, 1, uint64(f.DeviceTimeMS))
	b = protoappend.Double(b, 2, f.LatDeg)
	b = protoappend.Double(b, 3, f.LonDeg)
	if f.Has&HasAccuracy != 0 {
		b = protoappend.OptionalFloat(b, 4, f.AccuracyM)
	}
	if f.Has&HasSpeed != 0 {
		b = protoappend.OptionalFloat(b, 5, f.SpeedMPS)
	}
	if f.Has&HasHeading != 0 {
		b = protoappend.OptionalFloat(b, 6, f.HeadingDeg)
	}
	if f.Has&HasAltitude != 0 {
		b = protoappend.OptionalFloat(b, 7, f.AltitudeM)
	}
	if f.Has&HasMocked != 0 {
		b = protoappend.OptionalBool(b, 8, f.Mocked)
	}
	return b
}

// merge decodes b over what f holds, as a protobuf decoder does with a
// sub-message that comes in pieces.
func (f *Fix) merge(b []byte) error {
	s := scanner{rest: f.mergeLeading(b)}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			f.DeviceTimeMS = int64(s.num)
		case 2<<3 | typeFixed64:
			f.LatDeg = math.Float64frombits(s.num)
		case 3<<3 | typeFixed64:
			f.LonDeg = math.Float64frombits(s.num)
		case 4<<3 | typeFixed32:
			f.AccuracyM, f.Has = float32Of(s.num), f.Has|HasAccuracy
		case 5<<3 | typeFixed32:
			f.SpeedMPS, f.Has = float32Of(s.num), f.Has|HasSpeed
		case 6<<3 | typeFixed32:
			f.HeadingDeg, f.Has = float32Of(s.num), f.Has|HasHeading
		case 7<<3 | typeFixed32:
			f.AltitudeM, f.Has = float32Of(s.num), f.Has|HasAltitude
		case 8<<3 | typeVarint:
			f.Mocked, f.Has = s.num != 0, f.Has|HasMocked
		}
	}
	return s.err
}

// mergeLeading takes the fields with which b begins as far as they are time,
// coordinates and numbers in the order in which encoders write them, and returns
// the rest. A fix is decoded by ingest and by the tracker, so it is worth while.
func (f *Fix) mergeLeading(b []byte) []byte {
	if len(b) == 0 || b[0] != 1<<3|byte(typeVarint) {
		return b
	}
	timeMS, n := protowire.ConsumeVarint(b[1:])
	if n < 0 {
		return b
	}
	rest := b[1+n:]
	if len(rest) < 18 || rest[0] != 2<<3|byte(typeFixed64) || rest[9] != 3<<3|byte(typeFixed64) {
		return b
	}
	f.DeviceTimeMS = int64(timeMS)
	f.LatDeg = math.Float64frombits(binary.LittleEndian.Uint64(rest[1:]))
	f.LonDeg = math.Float64frombits(binary.LittleEndian.Uint64(rest[10:]))
	rest = rest[18:]
	for field, value := range [...]*float32{&f.AccuracyM, &f.SpeedMPS, &f.HeadingDeg, &f.AltitudeM} {
		if len(rest) < 5 || rest[0] != byte(4+field)<<3|byte(typeFixed32) {
			continue // left out, or for merge to judge
		}
		*value = math.Float32frombits(binary.LittleEndian.Uint32(rest[1:]))
		f.Has |= HasAccuracy << field
		rest = rest[5:]
	}
	return rest
}

func float32Of(bits uint64) float32 { return math.Float32frombits(uint32(bits)) }

// appendFixes writes a repeated Fix.
func appendFixes(b []byte, field protoappend.Number, fixes []Fix) []byte {
	for i := range fixes {
		var start int
		b, start = protoappend.Open(b, field)
		b = fixes[i].append(b)
		b = protoappend.Close(b, start)
	}
	return b
}

// mergeFix adds one decoded Fix to a repeated field.
func mergeFix(fixes []Fix, b []byte) ([]Fix, error) {
	fixes, f := extend(fixes)
	*f = Fix{}
	return fixes, f.merge(b)
}

func (a *Attributes) append(b []byte) []byte {
	b = protoappend.String(b, 1, a.Type)
	b = protoappend.Varint(b, 2, uint64(int64(a.Seats)))
	for _, tag := range a.Tags {
		b = appendTag(b, tag)
	}
	return b
}

// appendTag writes an element of a repeated string, which counts even when it
// is empty.
func appendTag(b []byte, v string) []byte {
	b, start := protoappend.Open(b, 3)
	return protoappend.Close(append(b, v...), start)
}

func (a *Attributes) maxBytes() int {
	n := len(a.Type) + 32
	for _, tag := range a.Tags {
		n += len(tag) + 11
	}
	return n
}

// reset empties a but keeps its capacity.
func (a *Attributes) reset() { a.Type, a.Seats, a.Tags = "", 0, a.Tags[:0] }

// merge decodes b over what a holds. A type equal to oldType and a tag equal to
// the one that stood in its place before are not allocated again.
func (a *Attributes) merge(b []byte, oldType string) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&a.Type, oldType)
		case 2<<3 | typeVarint:
			a.Seats = int32(s.num)
		case 3<<3 | typeBytes:
			var tag *string
			a.Tags, tag = extend(a.Tags)
			s.str(tag, *tag)
		}
	}
	return s.err
}
