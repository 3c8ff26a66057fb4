package wire

import (
	"fmt"

	"github.com/starling-fleet/starling/schemas/protoappend"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// StreamRequest is starlingv1.StreamReportsRequest: what ingest receives. With
// Codec on the server, a stream handler may RecvMsg into it.
type StreamRequest struct {
	// HasReport is false when the message was empty.
	HasReport bool
	Report    Report
}

// SizeBound returns a number of bytes that the report's encoding, in whichever
// message, does not exceed.
func (r *Report) SizeBound() int {
	n := 64 + len(r.VehicleID) + len(r.Fixes)*maxFixBytes
	if r.HasAttributes {
		n += r.Attributes.maxBytes()
	}
	return n
}

func (r *Report) append(b []byte, withVehicle bool) []byte {
	if withVehicle {
		b = protoappend.String(b, 1, r.VehicleID)
	}
	b = protoappend.Fixed64(b, 2, r.SessionID)
	b = protoappend.Varint(b, 3, uint64(r.Sequence))
	b = appendFixes(b, 4, r.Fixes)
	b = protoappend.Varint(b, 5, uint64(int64(r.Availability)))
	if r.HasAttributes {
		var start int
		b, start = protoappend.Open(b, 6)
		b = protoappend.Close(r.Attributes.append(b), start)
	}
	return b
}

// reportStrings are the strings of the report that a struct held before, to be
// used again when the next one has the same.
type reportStrings struct{ vehicleID, vehicleType string }

// reset empties r but keeps its capacity.
func (r *Report) reset() reportStrings {
	old := reportStrings{r.VehicleID, r.Attributes.Type}
	r.VehicleID, r.SessionID, r.Sequence = "", 0, 0
	r.Fixes = r.Fixes[:0]
	r.Availability = 0
	r.HasAttributes = false
	r.Attributes.reset()
	return old
}

func (r *Report) merge(b []byte, old *reportStrings) error {
	s := scanner{rest: b}
	for s.next() {
		var err error
		switch s.tag {
		case 1<<3 | typeBytes:
			s.str(&r.VehicleID, old.vehicleID)
		case 2<<3 | typeFixed64:
			r.SessionID = s.num
		case 3<<3 | typeVarint:
			r.Sequence = int64(s.num)
		case 4<<3 | typeBytes:
			r.Fixes, err = mergeFix(r.Fixes, s.data)
		case 5<<3 | typeVarint:
			r.Availability = starlingv1.Availability(int32(s.num))
		case 6<<3 | typeBytes:
			r.HasAttributes = true
			err = r.Attributes.merge(s.data, old.vehicleType)
		}
		s.invalid(err)
	}
	return s.err
}

// Unmarshal decodes a starlingv1.StreamReportsRequest. A vehicle id equal to
// the one already in the struct is not allocated again.
func (r *StreamRequest) Unmarshal(b []byte) error {
	old := r.Report.reset()
	r.HasReport = false
	s := scanner{rest: b}
	for s.next() {
		if s.tag == 1<<3|typeBytes {
			r.HasReport = true
			s.invalid(r.Report.merge(s.data, &old))
		}
	}
	return decodeError("StreamReportsRequest", s.err)
}

// Append appends the encoding of a starlingv1.StreamReportsRequest. Strings
// must be valid UTF-8.
func (r *StreamRequest) Append(dst []byte) []byte {
	if !r.HasReport {
		return dst
	}
	dst, start := protoappend.Open(dst, 1)
	return protoappend.Close(r.Report.append(dst, true), start)
}

// SizeBound returns a number of bytes that the encoding does not exceed.
func (r *StreamRequest) SizeBound() int {
	if !r.HasReport {
		return 0
	}
	return r.Report.SizeBound()
}

// decodeError names the message that could not be decoded.
func decodeError(message string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("decode starling.v1.%s: %w", message, err)
}
