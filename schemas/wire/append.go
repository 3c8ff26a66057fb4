package wire

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The append functions write one field, and nothing when proto3 leaves the
// field out because it holds its zero value. The tag must fit in one byte,
// which holds for field numbers below 16.

func appendVarint(b []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, tag), v)
}

func appendFixed64(b []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(append(b, tag), v)
}

// appendDouble leaves out +0 only: -0 is a value of its own.
func appendDouble(b []byte, tag byte, v float64) []byte {
	return appendFixed64(b, tag, math.Float64bits(v))
}

func appendFloat(b []byte, tag byte, v float32) []byte {
	if math.Float32bits(v) == 0 {
		return b
	}
	return appendOptionalFloat(b, tag, v)
}

// appendOptionalFloat writes the field whatever it holds.
func appendOptionalFloat(b []byte, tag byte, v float32) []byte {
	return protowire.AppendFixed32(append(b, tag), math.Float32bits(v))
}

// appendBool writes the field whatever it holds.
func appendBool(b []byte, tag byte, v bool) []byte {
	return append(b, tag, byte(protowire.EncodeBool(v)))
}

func appendString(b []byte, tag byte, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(append(b, tag), v)
}

func appendBytes(b []byte, tag byte, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(append(b, tag), v)
}

// openMessage starts a sub-message and returns where it starts. Its length is
// not known yet: one byte is kept for it, which is enough for most.
func openMessage(b []byte, tag byte) ([]byte, int) {
	b = append(b, tag, 0)
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
	var room [9]byte
	extra := protowire.SizeVarint(uint64(size)) - 1
	b = append(b, room[:extra]...)
	copy(b[start+extra:], b[start:start+size])
	protowire.AppendVarint(b[:start-1], uint64(size))
	return b
}

// tagOf is the one-byte tag of a field.
func tagOf(num, wireType uint64) byte { return byte(num<<3 | wireType) }
