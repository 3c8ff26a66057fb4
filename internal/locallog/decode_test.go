package locallog

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// FuzzChunk decodes anything: it either is refused or is exactly what its
// records encode to.
func FuzzChunk(f *testing.F) {
	c := newChunk(0, 0)
	c.add(eventlog.Record{Key: []byte("key"), Value: bytes.Repeat([]byte("v"), 200)}, nil, 0)
	c.add(eventlog.Record{}, nil, 0)
	c.seal(7, 1_700_000_000_000)
	f.Add(c.data)
	f.Add(c.data[:len(c.data)-1])
	f.Add([]byte{})
	f.Add(append([]byte{2}, c.data[1:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseChunk(7, data)
		if err != nil {
			return
		}
		records, err := c.appendRecords(nil, c.base)
		if err != nil {
			return
		}
		require.Len(t, records, c.count)
		again := newChunk(len(data), c.count)
		for i, s := range records {
			require.Equal(t, c.base+int64(i), s.Offset)
			again.add(eventlog.Record{Key: s.Key, Value: s.Value}, nil, 0)
		}
		again.seal(7, c.timeMS)
		decoded, err := again.appendRecords(nil, 7)
		require.NoError(t, err)
		require.Equal(t, records, decoded)
		from, err := c.appendRecords(nil, c.end()-1)
		require.NoError(t, err)
		require.Equal(t, records[len(records)-1:], from)
	})
}

// FuzzSegment decodes anything as the header of a segment.
func FuzzSegment(f *testing.F) {
	s := segment{timeMS: 1_700_000_000_000, starts: []int64{0, 1, 1 << 40, 127}}
	f.Add(s.encode())
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSegment(3, data, 4)
		if err != nil {
			return
		}
		again, err := parseSegment(3, s.encode(), 4)
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

// FuzzClaimState decodes anything as what is stored of a claim.
func FuzzClaimState(f *testing.F) {
	f.Add((&claimState{generation: 3, resume: -1}).encode())
	f.Add([]byte{0x80, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseClaimState(data)
		if err != nil {
			return
		}
		again, err := parseClaimState(s.encode())
		require.NoError(t, err)
		require.Equal(t, s.generation, again.generation)
		require.Equal(t, s.resume, again.resume)
	})
}
