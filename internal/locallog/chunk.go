package locallog

import (
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

const (
	// chunkBytes is the size above which a chunk takes no further record. A chunk
	// is a block of a table; the time in which Pebble finds that one is damaged
	// grows with its size, to a minute for half a megabyte.
	chunkBytes = 64 << 10
	// chunkOverhead is about what a chunk costs in memory beside its bytes.
	chunkOverhead = 100
)

// chunk is filled by appenders under its partition's mutex, stamped by the
// committer, and immutable from then on.
type chunk struct {
	layout.Chunk
	done []eventlog.Completion // nil once they were called
	cost int64                 // what its records took of the append buffer
}

func newChunk(bytes, count int) *chunk {
	c := &chunk{done: make([]eventlog.Completion, 0, max(count, 4))}
	c.Data = make([]byte, layout.ChunkHeader, max(bytes, 128))
	return c
}

func (c *chunk) add(rec eventlog.Record, done eventlog.Completion, cost int64) {
	c.Data = layout.AppendRecord(c.Data, rec)
	c.done = append(c.done, done)
	c.Count++
	c.cost += cost
}

// seal gives the chunk its place and time, and returns the place behind it.
func (c *chunk) seal(at ends.Place, timeMS int64) ends.Place {
	c.Base, c.Before, c.TimeMS = at.Next, at.Chain, timeMS
	return layout.Seal(c.Data, c.Count, at, timeMS)
}

// cached is what the chunk costs in the tail cache.
func (c *chunk) cached() int64 { return int64(cap(c.Data)) + chunkOverhead }

// parseChunk makes a chunk of a stored value, which it keeps.
func parseChunk(base int64, data []byte) (*chunk, error) {
	c, err := layout.ParseChunk(base, data)
	return &chunk{Chunk: c}, err
}
