package locallog

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// FuzzChunk decodes anything: it either is refused or is exactly what its
// records encode to.
func FuzzChunk(f *testing.F) {
	c := newChunk(0, 0)
	c.add(eventlog.Record{Key: []byte("key"), Value: bytes.Repeat([]byte("v"), 200)}, nil, 0)
	c.add(eventlog.Record{}, nil, 0)
	c.seal(ends.Place{Next: 7, Chain: 5}, 1_700_000_000_000)
	f.Add(c.Data)
	f.Add(c.Data[:len(c.Data)-1])
	f.Add([]byte{})
	f.Add(append([]byte{3}, c.Data[1:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseChunk(7, data)
		if err != nil {
			return
		}
		records, err := c.AppendRecords(nil, c.Base)
		if err != nil {
			return
		}
		require.Len(t, records, c.Count)
		again := newChunk(len(data), c.Count)
		for i, s := range records {
			require.Equal(t, c.Base+int64(i), s.Offset)
			again.add(eventlog.Record{Key: s.Key, Value: s.Value}, nil, 0)
		}
		again.seal(ends.Place{Next: 7}, c.TimeMS)
		decoded, err := again.AppendRecords(nil, 7)
		require.NoError(t, err)
		require.Equal(t, records, decoded)
		from, err := c.AppendRecords(nil, c.End()-1)
		require.NoError(t, err)
		require.Equal(t, records[len(records)-1:], from)
	})
}

// FuzzSegment decodes anything as the header of a segment.
func FuzzSegment(f *testing.F) {
	s := layout.Segment{TimeMS: 1_700_000_000_000, Starts: []ends.Place{{}, {Next: 1, Chain: 7}, {Next: 1 << 40, Chain: 1 << 63}, {Next: 127}}}
	f.Add(s.Encode())
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := layout.ParseSegment(3, data, 4)
		if err != nil {
			return
		}
		again, err := layout.ParseSegment(3, s.Encode(), 4)
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
