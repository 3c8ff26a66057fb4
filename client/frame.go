package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A pending report is kept encoded, so that its memory is known and a resend
// encodes nothing. The body holds fixes, availability and attributes; the
// head (vehicle, session, sequence) is written when the report is sent, since
// vehicle and session are left out where the stream's previous report has them.

// Field numbers of starling.v1.Report and StreamReportsRequest.
const (
	fieldRequestReport   = 1
	fieldReportVehicleID = 1
	fieldReportSessionID = 2
	fieldReportSequence  = 3
)

// encodeBody encodes the fields of a report that are not part of its head.
func encodeBody(r *starlingv1.Report) ([]byte, error) {
	body, err := proto.Marshal(&starlingv1.Report{Fixes: r.GetFixes(), Availability: r.GetAvailability(), Attributes: r.GetAttributes()})
	if err != nil {
		return nil, fmt.Errorf("encode report of vehicle %q: %w", r.GetVehicleId(), err)
	}
	return body, nil
}

// encodeFrame encodes a StreamReportsRequest around a body. Concatenating
// encoded fields is how protobuf encodes a message.
func encodeFrame(e *entry, withNames bool) []byte {
	size := protowire.SizeTag(fieldReportSequence) + protowire.SizeVarint(uint64(e.sequence)) + len(e.body)
	if withNames {
		size += protowire.SizeTag(fieldReportVehicleID) + protowire.SizeBytes(len(e.lane.vehicle)) +
			protowire.SizeTag(fieldReportSessionID) + protowire.SizeFixed64()
	}
	frame := make([]byte, 0, protowire.SizeTag(fieldRequestReport)+protowire.SizeBytes(size))
	frame = protowire.AppendTag(frame, fieldRequestReport, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(size))
	if withNames {
		frame = protowire.AppendTag(frame, fieldReportVehicleID, protowire.BytesType)
		frame = protowire.AppendString(frame, e.lane.vehicle)
		frame = protowire.AppendTag(frame, fieldReportSessionID, protowire.Fixed64Type)
		frame = protowire.AppendFixed64(frame, e.lane.session)
	}
	frame = protowire.AppendTag(frame, fieldReportSequence, protowire.VarintType)
	frame = protowire.AppendVarint(frame, uint64(e.sequence))
	return append(frame, e.body...)
}

// frameCodec lets a stream send frames as they are and decodes what it
// receives as generated messages.
type frameCodec struct{}

var _ encoding.CodecV2 = frameCodec{}

func (frameCodec) Name() string { return "proto" }

func (frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("frame codec can't send %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(frame)}, nil
}

func (frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("frame codec can't receive %T", v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return proto.Unmarshal(buf.ReadOnlyData(), m)
}
