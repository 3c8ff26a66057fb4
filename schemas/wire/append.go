package wire

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The append functions write one field, and nothing when proto3 leaves the
// field out because it holds its zero value.

func appendVarint(b []byte, t tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(t.append(b), v)
}

func appendFixed64(b []byte, t tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(t.append(b), v)
}

// appendDouble leaves out +0 only: -0 is a value of its own.
func appendDouble(b []byte, t tag, v float64) []byte {
	return appendFixed64(b, t, math.Float64bits(v))
}

func appendFloat(b []byte, t tag, v float32) []byte {
	if math.Float32bits(v) == 0 {
		return b
	}
	return appendOptionalFloat(b, t, v)
}

// appendOptionalFloat writes the field whatever it holds.
func appendOptionalFloat(b []byte, t tag, v float32) []byte {
	return protowire.AppendFixed32(t.append(b), math.Float32bits(v))
}

// appendBool writes the field whatever it holds.
func appendBool(b []byte, t tag, v bool) []byte {
	return append(t.append(b), byte(protowire.EncodeBool(v)))
}

func appendString(b []byte, t tag, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(t.append(b), v)
}

func appendBytes(b []byte, t tag, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(t.append(b), v)
}

// openMessage starts a sub-message and returns where it starts. Its length is
// not known yet: one byte is kept for it, which is enough for most.
func openMessage(b []byte, t tag) ([]byte, int) {
	b = append(t.append(b), 0)
	return b, len(b)
}

// closeMessage writes the length of the sub-message that starts at start,
// moving its content up when the length takes more than one byte.
func closeMessage(b []byte, start int) []byte {
	size := len(b) - start
	if size < 0x80 {
		b[start-1] = byte(size)
		return b
	}
	var longer [9]byte
	extra := protowire.SizeVarint(uint64(size)) - 1
	b = append(b, longer[:extra]...)
	copy(b[start+extra:], b[start:start+size])
	protowire.AppendVarint(b[:start-1], uint64(size))
	return b
}

// tag is a field's number and wire type as they are written.
type tag uint32

// tagOf is the tag of a field.
func tagOf(num, wireType uint64) tag { return tag(num<<3 | wireType) }

// append writes the tag: one byte for field numbers below 16.
func (t tag) append(b []byte) []byte {
	if t < 0x80 {
		return append(b, byte(t))
	}
	return protowire.AppendVarint(b, uint64(t))
}
