package locallog

import (
	"slices"
	"sync"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// tailCache keeps the newest chunks of all partitions in memory, up to a
// number of bytes: the oldest goes first, whatever its partition.
type tailCache struct {
	limit int64

	mu    sync.Mutex
	bytes int64
	order []*partition // one entry for each chunk, oldest first
}

// publish makes durable chunks visible and wakes the readers that wait.
func (tc *tailCache) publish(p *partition, chunks []*chunk) {
	p.shown.Lock()
	p.tail = append(p.tail, chunks...)
	p.end = chunks[len(chunks)-1].End()
	p.reach = p.end
	waiters := p.waiters
	p.waiters = p.waiters[:0:0]
	p.shown.Unlock()
	for _, r := range waiters {
		r.wakeUp()
	}
	tc.mu.Lock()
	defer tc.mu.Unlock()
	for _, c := range chunks {
		tc.bytes += c.cached()
		tc.order = append(tc.order, p)
	}
	for tc.bytes > tc.limit && len(tc.order) > 0 {
		tc.bytes -= tc.order[0].dropOldest()
		tc.order[0] = nil
		tc.order = tc.order[1:]
	}
}

// dropOldest forgets the oldest chunk in memory and returns what it cost.
func (p *partition) dropOldest() int64 {
	p.shown.Lock()
	defer p.shown.Unlock()
	c := p.tail[0]
	p.tail[0] = nil
	p.tail = p.tail[1:]
	return c.cached()
}

// bounds returns what is there. Offsets at the end that a repair has declared lost
// do not count until something is appended behind them: whoever reads up to the
// end, or looks at the record before it, would wait for ever.
func (p *partition) bounds() eventlog.Bounds {
	p.shown.Lock()
	defer p.shown.Unlock()
	return eventlog.Bounds{First: p.first, End: max(p.end, p.first)}
}

// readable returns whether an offset is one to read from.
func (p *partition) readable(offset int64) bool {
	p.shown.Lock()
	defer p.shown.Unlock()
	return offset >= 0 && offset <= max(p.reach, p.first)
}

// pollRecords and pollBytes bound what one Poll returns, but for a single
// chunk.
const (
	pollRecords = 4096
	pollBytes   = 1 << 20
)

// glance is what a reader finds in a partition.
type glance struct {
	first, end int64
	chunks     []*chunk // that hold the offset asked for and those after it, if in memory
}

// look returns the partition's state and, if they are in memory, some chunks
// from an offset on. If there is nothing to read yet the reader is woken when
// there is.
func (p *partition) look(from int64, r *reader) glance {
	p.shown.Lock()
	defer p.shown.Unlock()
	g := glance{first: p.first, end: p.end}
	switch {
	case from < p.first:
		return g
	case from >= p.end:
		if !slices.Contains(p.waiters, r) {
			p.waiters = append(p.waiters, r)
		}
		return g
	case len(p.tail) == 0, from < p.tail[0].Base:
		return g
	}
	i, found := slices.BinarySearchFunc(p.tail, from, func(c *chunk, from int64) int {
		switch {
		case c.End() <= from:
			return -1
		case c.Base > from:
			return 1
		}
		return 0
	})
	if !found {
		return g // cannot be: the tail is contiguous
	}
	n, records, bytes := i, 0, 0
	for n < len(p.tail) && (n == i || records+p.tail[n].Count <= pollRecords && bytes+len(p.tail[n].Data) <= pollBytes) {
		records += p.tail[n].Count
		bytes += len(p.tail[n].Data)
		n++
	}
	g.chunks = slices.Clone(p.tail[i:n])
	return g
}
