package locallog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// A chunk is a run of records of one partition that were committed together:
// one key of the record store. Its value is
//
//	byte     format, 1
//	uint64   append time of all its records, ms since the Unix epoch, little endian
//	uint32   number of records, little endian
//	records  each: key length, key, value length, value (lengths are uvarints)
const (
	chunkFormat = 1
	chunkHeader = 1 + 8 + 4
	// chunkBytes is the size above which a chunk takes no further record.
	chunkBytes = 1 << 20
	// chunkOverhead is about what a chunk costs in memory beside its bytes.
	chunkOverhead = 100
)

// chunk is filled by appenders under its partition's mutex, stamped by the
// committer, and immutable from then on.
type chunk struct {
	base   int64 // offset of the first record
	timeMS int64
	count  int
	data   []byte
	done   []eventlog.Completion // nil once they were told
	cost   int64                 // what its records took of the append buffer
}

func newChunk(bytes, count int) *chunk {
	c := &chunk{data: make([]byte, chunkHeader, max(bytes, 128)), done: make([]eventlog.Completion, 0, max(count, 4))}
	c.data[0] = chunkFormat
	return c
}

func (c *chunk) end() int64 { return c.base + int64(c.count) }

func (c *chunk) add(rec eventlog.Record, done eventlog.Completion, cost int64) {
	b := binary.AppendUvarint(c.data, uint64(len(rec.Key)))
	b = append(b, rec.Key...)
	b = binary.AppendUvarint(b, uint64(len(rec.Value)))
	c.data = append(b, rec.Value...)
	c.done = append(c.done, done)
	c.count++
	c.cost += cost
}

// seal gives the chunk its place and time.
func (c *chunk) seal(base, timeMS int64) {
	c.base, c.timeMS = base, timeMS
	binary.LittleEndian.PutUint64(c.data[1:], uint64(timeMS))
	binary.LittleEndian.PutUint32(c.data[9:], uint32(c.count))
}

// cached is what the chunk costs in the tail cache.
func (c *chunk) cached() int64 { return int64(cap(c.data)) + chunkOverhead }

var errChunk = errors.New("chunk of records is damaged")

// parseChunk makes a chunk of a stored value, which it keeps.
func parseChunk(base int64, data []byte) (*chunk, error) {
	if len(data) < chunkHeader {
		return nil, fmt.Errorf("%w: %d bytes", errChunk, len(data))
	}
	if data[0] != chunkFormat {
		return nil, fmt.Errorf("%w: format %d is unknown to this version", errChunk, data[0])
	}
	c := &chunk{
		base: base, data: data,
		timeMS: int64(binary.LittleEndian.Uint64(data[1:])),
		count:  int(binary.LittleEndian.Uint32(data[9:])),
	}
	if c.count < 1 || c.count > (len(data)-chunkHeader)/2 {
		return nil, fmt.Errorf("%w: %d records in %d bytes", errChunk, c.count, len(data))
	}
	return c, nil
}

// appendRecords decodes the records from an offset on. They share the chunk's
// bytes.
func (c *chunk) appendRecords(out []eventlog.Stored, from int64) ([]eventlog.Stored, error) {
	rest := c.data[chunkHeader:]
	for offset := c.base; offset < c.end(); offset++ {
		key, after, err := field(rest)
		if err != nil {
			return nil, err
		}
		value, after, err := field(after)
		if err != nil {
			return nil, err
		}
		if rest = after; offset >= from {
			out = append(out, eventlog.Stored{Offset: offset, AppendTimeMS: c.timeMS, Key: key, Value: value})
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last record", errChunk, len(rest))
	}
	return out, nil
}

// field cuts one length-prefixed field off.
func field(b []byte) (value, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 { // nearly always: one byte of length
		n := int(b[0]) + 1
		if n <= len(b) {
			return b[1:n:n], b[n:], nil
		}
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("%w: a field of %d bytes in %d", errChunk, n, len(b))
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}
