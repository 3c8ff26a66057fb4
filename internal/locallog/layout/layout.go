// Package layout is how the embedded log is laid out on disk: the keys and
// values of its two stores, how the stores are opened, and the walk that holds
// what is there against the account of what was acknowledged (package ends).
package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
)

// StoreFormat is the format of both Pebble stores. It is pinned: raising it is a
// decision, since no older version of Pebble opens a store that was raised, and
// docs/log.md describes how to make it. A newer Pebble opens older formats.
const StoreFormat = pebble.FormatValueSeparation

// A chunk is a run of records of one partition that were committed together:
// one key of the record store. Its value is
//
//	byte     format, 2
//	uint64   append time of all its records, ms since the Unix epoch, little endian
//	uint32   number of records, little endian
//	uint64   checksum of the partition's chunk before it, little endian
//	records  each: key length, key, value length, value (lengths are uvarints)
//
// Its own checksum is over all of that: so the last one vouches for all before
// it, and a chunk that is missing in between is noticed.
const (
	ChunkFormat = 2
	ChunkHeader = 1 + 8 + 4 + 8
)

// ErrChunk reports that a chunk is not what was written.
var ErrChunk = errors.New("chunk of records is damaged")

// Chunk is a chunk as it is stored.
type Chunk struct {
	Base   int64 // offset of the first record
	TimeMS int64
	Count  int
	Before uint64 // checksum of the chunk before it
	Data   []byte
}

// ParseChunk makes a chunk of a stored value, which it keeps.
func ParseChunk(base int64, data []byte) (Chunk, error) {
	if len(data) < ChunkHeader {
		return Chunk{}, fmt.Errorf("%w: %d bytes", ErrChunk, len(data))
	}
	if data[0] != ChunkFormat {
		return Chunk{}, fmt.Errorf("%w: format %d is unknown to this version", ErrChunk, data[0])
	}
	c := Chunk{
		Base: base, Data: data,
		TimeMS: int64(binary.LittleEndian.Uint64(data[1:])),
		Count:  int(binary.LittleEndian.Uint32(data[9:])),
		Before: binary.LittleEndian.Uint64(data[13:]),
	}
	if c.Count < 1 || c.Count > (len(data)-ChunkHeader)/2 {
		return c, fmt.Errorf("%w: %d records in %d bytes", ErrChunk, c.Count, len(data))
	}
	return c, nil
}

// Seal fills the header of a chunk's bytes in and returns the place behind it.
func Seal(data []byte, count int, at ends.Place, timeMS int64) ends.Place {
	data[0] = ChunkFormat
	binary.LittleEndian.PutUint64(data[1:], uint64(timeMS))
	binary.LittleEndian.PutUint32(data[9:], uint32(count))
	binary.LittleEndian.PutUint64(data[13:], at.Chain)
	return ends.Place{Next: at.Next + int64(count), Chain: xxhash.Sum64(data)}
}

// Begins returns the place where the chunk begins.
func (c *Chunk) Begins() ends.Place { return ends.Place{Next: c.Base, Chain: c.Before} }

// Ends returns the place behind the chunk.
func (c *Chunk) Ends() ends.Place {
	return ends.Place{Next: c.Base + int64(c.Count), Chain: xxhash.Sum64(c.Data)}
}

// End is the offset behind the chunk's last record.
func (c *Chunk) End() int64 { return c.Base + int64(c.Count) }

// AppendRecords decodes the records from an offset on. They share the chunk's
// bytes.
func (c *Chunk) AppendRecords(out []eventlog.Stored, from int64) ([]eventlog.Stored, error) {
	rest := c.Data[ChunkHeader:]
	for offset := c.Base; offset < c.End(); offset++ {
		key, after, err := field(rest)
		if err != nil {
			return nil, err
		}
		value, after, err := field(after)
		if err != nil {
			return nil, err
		}
		if rest = after; offset >= from {
			out = append(out, eventlog.Stored{Offset: offset, AppendTimeMS: c.TimeMS, Key: key, Value: value})
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last record", ErrChunk, len(rest))
	}
	return out, nil
}

// AppendRecord encodes a record behind a chunk's others.
func AppendRecord(data []byte, rec eventlog.Record) []byte {
	b := binary.AppendUvarint(data, uint64(len(rec.Key)))
	b = append(b, rec.Key...)
	b = binary.AppendUvarint(b, uint64(len(rec.Value)))
	return append(b, rec.Value...)
}

// field splits one length-prefixed field off.
func field(b []byte) (value, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 { // nearly always: one byte of length
		n := int(b[0]) + 1
		if n <= len(b) {
			return b[1:n:n], b[n:], nil
		}
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("%w: a field of %d bytes in %d", ErrChunk, n, len(b))
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}

// Segment is a stretch of the record store.
type Segment struct {
	Number uint64
	TimeMS int64 // append time of its first record
	// Starts are the places where the partitions stood when it began, by
	// (topic id - 1) * partitions + partition.
	Starts []ends.Place
}

// Encode returns a segment's header: append time of its first record, then for
// each topic by id and each partition the next offset when it began (uvarints)
// and the running checksum (uint64, little endian). The header of a store with
// fewer topics is shorter.
func (s *Segment) Encode() []byte {
	b := binary.AppendUvarint(make([]byte, 0, 10+len(s.Starts)*12), uint64(s.TimeMS))
	for _, start := range s.Starts {
		b = binary.AppendUvarint(b, uint64(start.Next))
		b = binary.LittleEndian.AppendUint64(b, start.Chain)
	}
	return b
}

// ParseSegment is the inverse of Encode, for so many places.
func ParseSegment(number uint64, b []byte, places int) (Segment, error) {
	s := Segment{Number: number, Starts: make([]ends.Place, 0, places)}
	next := func() (int64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxInt64 {
			return 0, false
		}
		b = b[n:]
		return int64(v), true
	}
	var ok bool
	if s.TimeMS, ok = next(); !ok {
		return s, fmt.Errorf("header of segment %d is damaged", number)
	}
	for len(b) > 0 {
		offset, ok := next()
		if !ok || len(b) < 8 {
			return s, fmt.Errorf("header of segment %d is damaged", number)
		}
		s.Starts = append(s.Starts, ends.Place{Next: offset, Chain: binary.LittleEndian.Uint64(b)})
		b = b[8:]
	}
	if len(s.Starts) > places {
		return s, fmt.Errorf("header of segment %d names %d partitions, there are %d", number, len(s.Starts), places)
	}
	// Topics that are younger than the segment begin at 0.
	for len(s.Starts) < places {
		s.Starts = append(s.Starts, ends.Place{})
	}
	return s, nil
}
