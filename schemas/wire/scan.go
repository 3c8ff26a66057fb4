package wire

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	// errUTF8 is what proto3 demands of a string field that is not valid UTF-8.
	errUTF8        = errors.New("string field holds invalid UTF-8")
	errFieldNumber = errors.New("field number out of range")
)

// Tags of the wire format: field number and wire type in one number. A field
// whose wire type is not the declared one is, by the protobuf rules, an unknown
// field, so decoders switch on the whole tag.
const (
	typeVarint  = uint64(protowire.VarintType)
	typeFixed64 = uint64(protowire.Fixed64Type)
	typeFixed32 = uint64(protowire.Fixed32Type)
	typeBytes   = uint64(protowire.BytesType)
)

// scanner walks the fields of one encoded message. After next has returned
// true, tag holds the field's tag and num (varint, fixed32, fixed64) or data
// (length-delimited, aliasing the input) its value. Groups, which starling.v1
// does not use, are checked and passed as a tag that no decoder knows.
type scanner struct {
	rest []byte
	tag  uint64
	num  uint64
	data []byte
	err  error
}

// next moves to the next field. It returns false at the end of the message or
// when the input is malformed, which err then reports.
//
// Nearly every field has a tag of at most two bytes and, if it has a length, one
// below 128. Such fields are read here, the others and what is malformed by
// nextAny, which alone is the rule.
func (s *scanner) next() bool {
	b := s.rest
	if len(b) < 2 {
		return s.nextAny()
	}
	tag, at := uint64(b[0]), 1
	if tag >= 0x80 {
		if b[1] >= 0x80 {
			return s.nextAny()
		}
		tag, at = tag&0x7f|uint64(b[1])<<7, 2
	}
	if tag < 1<<3 {
		return s.nextAny()
	}
	value := b[at:]
	size := 0
	switch tag & 7 {
	case typeVarint:
		if s.num, size = protowire.ConsumeVarint(value); size < 0 {
			return s.nextAny()
		}
	case typeFixed64:
		if size = 8; len(value) < size {
			return s.nextAny()
		}
		s.num = binary.LittleEndian.Uint64(value)
	case typeFixed32:
		if size = 4; len(value) < size {
			return s.nextAny()
		}
		s.num = uint64(binary.LittleEndian.Uint32(value))
	case typeBytes:
		if len(value) == 0 || value[0] >= 0x80 || len(value) <= int(value[0]) {
			return s.nextAny()
		}
		size = 1 + int(value[0])
		s.data = value[1:size]
	default:
		return s.nextAny()
	}
	s.tag, s.rest = tag, value[size:]
	return true
}

// nextAny is next for any field.
func (s *scanner) nextAny() bool {
	b := s.rest
	if len(b) == 0 {
		return false
	}
	tag := uint64(b[0])
	if tag < 0x80 {
		b = b[1:]
	} else {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return s.fail(n)
		}
		tag, b = v, b[n:]
	}
	if num := tag >> 3; num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
		s.err = errFieldNumber
		return false
	}
	s.tag = tag
	n := 0
	switch tag & 7 {
	case typeVarint:
		s.num, n = protowire.ConsumeVarint(b)
	case typeFixed64:
		s.num, n = protowire.ConsumeFixed64(b)
	case typeFixed32:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		s.num = uint64(v)
	case typeBytes:
		s.data, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(protowire.Number(tag>>3), protowire.Type(tag&7), b)
	}
	if n < 0 {
		return s.fail(n)
	}
	s.rest = b[n:]
	return true
}

func (s *scanner) fail(n int) bool {
	s.err = protowire.ParseError(n)
	return false
}

// str stores the current field as a string in *dst. When it equals old, old is
// stored and nothing is allocated.
func (s *scanner) str(dst *string, old string) {
	if string(s.data) == old {
		*dst = old
		return
	}
	if !utf8.Valid(s.data) {
		s.invalid(errUTF8)
		return
	}
	*dst = string(s.data)
}

// invalid ends the walk with err.
func (s *scanner) invalid(err error) {
	if err != nil && s.err == nil {
		s.err = err
		s.rest = nil
	}
}

// skim checks that b is a well-formed message and keeps nothing of it.
func skim(b []byte) error {
	s := scanner{rest: b}
	for s.next() {
	}
	return s.err
}

// extend makes s one element longer and returns the new element as it was left
// there by an earlier use, so that what it holds can be used again.
func extend[T any](s []T) ([]T, *T) {
	if len(s) < cap(s) {
		s = s[:len(s)+1]
	} else {
		var zero T
		s = append(s, zero)
	}
	return s, &s[len(s)-1]
}
