package wire

import (
	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Append appends the encoding of a starlingv1.StreamReportsResponse. Strings
// must be valid UTF-8.
func (a *Ack) Append(dst []byte) []byte {
	dst = protoappend.Varint(dst, 1, uint64(a.AcknowledgedReports))
	dst = protoappend.Varint(dst, 2, uint64(a.AcknowledgedSequence))
	for i := range a.Refusals {
		var start int
		dst, start = protoappend.Open(dst, 3)
		dst = protoappend.Close(a.Refusals[i].append(dst), start)
	}
	return dst
}

// SizeBound returns a number of bytes that the encoding does not exceed.
func (a *Ack) SizeBound() int {
	n := 22
	for i := range a.Refusals {
		n += 80 + len(a.Refusals[i].Field) + len(a.Refusals[i].Description)
	}
	return n
}

// Unmarshal decodes a starlingv1.StreamReportsResponse.
func (a *Ack) Unmarshal(b []byte) error {
	a.AcknowledgedReports, a.AcknowledgedSequence = 0, 0
	a.Refusals = a.Refusals[:0]
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			a.AcknowledgedReports = int64(s.num)
		case 2<<3 | typeVarint:
			a.AcknowledgedSequence = int64(s.num)
		case 3<<3 | typeBytes:
			var f *FixRefusal
			a.Refusals, f = extend(a.Refusals)
			old := *f
			*f = FixRefusal{}
			s.invalid(f.merge(s.data, &old))
		}
	}
	return decodeError("StreamReportsResponse", s.err)
}

func (f *FixRefusal) append(b []byte) []byte {
	b = protoappend.Varint(b, 1, uint64(f.ReportNumber))
	b = protoappend.Varint(b, 2, uint64(f.Sequence))
	b = protoappend.Varint(b, 3, uint64(int64(f.FixIndex)))
	b = protoappend.String(b, 4, f.Field)
	b = protoappend.Varint(b, 5, uint64(int64(f.Reason)))
	return protoappend.String(b, 6, f.Description)
}

func (f *FixRefusal) merge(b []byte, old *FixRefusal) error {
	s := scanner{rest: b}
	for s.next() {
		switch s.tag {
		case 1<<3 | typeVarint:
			f.ReportNumber = int64(s.num)
		case 2<<3 | typeVarint:
			f.Sequence = int64(s.num)
		case 3<<3 | typeVarint:
			f.FixIndex = int32(s.num)
		case 4<<3 | typeBytes:
			s.str(&f.Field, old.Field)
		case 5<<3 | typeVarint:
			f.Reason = starlingv1.RefusalReason(int32(s.num))
		case 6<<3 | typeBytes:
			s.str(&f.Description, old.Description)
		}
	}
	return s.err
}
