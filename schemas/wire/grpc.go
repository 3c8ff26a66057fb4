package wire

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that Codec falls back to
	"google.golang.org/grpc/mem"
)

// appender and unmarshaler are what a message of this package offers.
type (
	appender interface {
		Append(dst []byte) []byte
		SizeBound() int
	}
	unmarshaler interface {
		Unmarshal(b []byte) error
	}
)

// Encoded is a message that has been encoded already. It can be sent once: what
// holds Data is given back to its pool after that.
type Encoded struct{ Data mem.BufferSlice }

// Codec returns a gRPC codec that knows *StreamRequest, *Ack and, to be sent,
// *Encoded, and hands every other message to gRPC's own protobuf codec. What goes over the wire is the
// same. Pass it to grpc.ForceServerCodecV2 or grpc.ForceCodecV2; it is not
// registered globally. It is safe for concurrent use.
//
// Strings of a message that is sent must be valid UTF-8: the codec does not
// check them.
func Codec() encoding.CodecV2 {
	return codec{CodecV2: encoding.GetCodecV2("proto")}
}

type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*Encoded); ok {
		return e.Data, nil
	}
	m, ok := v.(appender)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	bound := m.SizeBound()
	if mem.IsBelowBufferPoolingThreshold(bound) {
		return mem.BufferSlice{mem.SliceBuffer(m.Append(make([]byte, 0, bound)))}, nil
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(bound)
	*buf = m.Append((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(unmarshaler)
	switch {
	case ok:
	case isReport(v):
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buf.Free()
		return c.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(withoutSurplusFixes(buf.ReadOnlyData(), keptFixes))}, v)
	default:
		return c.CodecV2.Unmarshal(data, v)
	}
	if len(data) == 1 {
		return m.Unmarshal(data[0].ReadOnlyData())
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return m.Unmarshal(buf.ReadOnlyData())
}
