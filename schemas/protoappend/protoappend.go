// Package protoappend writes fields of the protobuf wire format, for encoders
// that are too hot for the generated code. A function writes one field, and
// nothing when proto3 leaves the field out because it holds its zero value. It
// may be imported by whatever writes messages of schemas.
package protoappend

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Number is a field's number.
type Number = protowire.Number

// tag writes a field's number and wire type: one byte for numbers below 16, and
// two for those below 2048, which is small enough to be inlined.
func tag(b []byte, field Number, wireType protowire.Type) []byte {
	if field < 16 {
		return append(b, byte(field)<<3|byte(wireType))
	}
	return longTag(b, field, wireType)
}

func longTag(b []byte, field Number, wireType protowire.Type) []byte {
	return protowire.AppendTag(b, field, wireType)
}

// Varint writes an integer, a bool or an enum.
func Varint(b []byte, field Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	if field >= 16 || v >= 0x80 {
		return protowire.AppendVarint(tag(b, field, protowire.VarintType), v)
	}
	return append(b, byte(field)<<3|byte(protowire.VarintType), byte(v))
}

// Bool writes true.
func Bool(b []byte, field Number, v bool) []byte {
	if !v {
		return b
	}
	return OptionalBool(b, field, true)
}

// OptionalBool writes the field whatever it holds.
func OptionalBool(b []byte, field Number, v bool) []byte {
	return append(tag(b, field, protowire.VarintType), byte(protowire.EncodeBool(v)))
}

// Fixed64 writes a fixed64.
func Fixed64(b []byte, field Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	if n := len(b); field < 16 && cap(b)-n >= 9 {
		b = b[:n+9]
		b[n] = byte(field)<<3 | byte(protowire.Fixed64Type)
		binary.LittleEndian.PutUint64(b[n+1:], v)
		return b
	}
	return protowire.AppendFixed64(tag(b, field, protowire.Fixed64Type), v)
}

// Double writes a double. It leaves out +0 only: -0 is a value of its own.
func Double(b []byte, field Number, v float64) []byte {
	return Fixed64(b, field, math.Float64bits(v))
}

// Float writes a float. It leaves out +0 only.
func Float(b []byte, field Number, v float32) []byte {
	if math.Float32bits(v) == 0 {
		return b
	}
	return OptionalFloat(b, field, v)
}

// OptionalFloat writes the field whatever it holds.
func OptionalFloat(b []byte, field Number, v float32) []byte {
	if n := len(b); field < 16 && cap(b)-n >= 5 {
		b = b[:n+5]
		b[n] = byte(field)<<3 | byte(protowire.Fixed32Type)
		binary.LittleEndian.PutUint32(b[n+1:], math.Float32bits(v))
		return b
	}
	return protowire.AppendFixed32(tag(b, field, protowire.Fixed32Type), math.Float32bits(v))
}

// String writes a string, which must be valid UTF-8.
func String(b []byte, field Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(tag(b, field, protowire.BytesType), v)
}

// Bytes writes a byte string.
func Bytes(b []byte, field Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(tag(b, field, protowire.BytesType), v)
}

// Open begins a message in a field, or a string that is written in parts, and
// returns where it starts. Its length is not known yet: one byte is kept for it,
// which is enough for most.
func Open(b []byte, field Number) (out []byte, start int) {
	b = append(tag(b, field, protowire.BytesType), 0)
	return b, len(b)
}

// Close writes the length of what Open began, and moves its content up where
// that takes more than one byte.
func Close(b []byte, start int) []byte {
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
