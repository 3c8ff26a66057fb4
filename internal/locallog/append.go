package locallog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// appendOverhead is what an append costs of the buffer beside its bytes.
const appendOverhead = 32

// partition is one partition of one topic.
type partition struct {
	topic  *topic
	number int32

	intake struct {
		sync.Mutex
		chunks []*chunk // waiting for the committer, oldest first; the last may grow
		queued bool     // is in the dirty list
		closed bool
		// What chunks have lately grown to: the next begins with as much.
		bytesHint, countHint int
	}

	// next is the place of the next chunk: the committer's.
	next ends.Place

	// What readers see.
	shown   sync.Mutex
	first   int64    // oldest offset kept
	end     int64    // one past the newest durable record
	reach   int64    // largest offset to read from; beyond end while a repair's gap is last
	tail    []*chunk // the newest chunks, contiguous up to end
	waiters []*reader
}

// index is the partition's number among those of all topics.
func (p *partition) index() int { return p.topic.index + int(p.number) }

// dirtyList holds the partitions that have appends waiting.
type dirtyList struct {
	sync.Mutex
	partitions []*partition
	wake       chan struct{} // capacity 1
}

func (d *dirtyList) add(p *partition) {
	d.Lock()
	defer d.Unlock()
	d.partitions = append(d.partitions, p)
	if len(d.partitions) == 1 {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

func (d *dirtyList) take() []*partition {
	d.Lock()
	defer d.Unlock()
	taken := d.partitions
	d.partitions = nil
	return taken
}

// Append implements eventlog.Appender.
func (l *Log) Append(ctx context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	t := l.topics[topic]
	if t == nil || uint32(partition) >= uint32(len(t.partitions)) {
		_, err := l.find(topic, partition)
		return err
	}
	bytes := len(rec.Key) + len(rec.Value)
	switch {
	case bytes > t.decl.MaxRecordBytes:
		return fmt.Errorf("append to %s partition %d: %w: %d bytes, at most %d", topic, partition, eventlog.ErrTooLarge, bytes, t.decl.MaxRecordBytes)
	case t.decl.Compacted:
		return fmt.Errorf("append to %s: a compacted topic is written by checkpoints alone", topic)
	case t.refuse.Load():
		l.metrics.refused.Inc()
		return fmt.Errorf("append to %s partition %d: %w", topic, partition, eventlog.ErrFull)
	}
	if err := l.Err(); err != nil {
		return fmt.Errorf("append to %s partition %d: %w", topic, partition, err)
	}
	cost := int64(bytes) + appendOverhead
	if err := l.capacity.acquire(ctx, cost, l.stopped); err != nil {
		if errors.Is(err, errStopped) {
			err = l.stopErr()
		}
		return fmt.Errorf("append to %s partition %d: %w", topic, partition, err)
	}
	p := &t.partitions[partition]
	if !p.put(rec, done, cost, l) {
		l.capacity.release(cost)
		return l.stopErr()
	}
	return nil
}

// Refuses returns why an append to a topic would be refused now, or nil: the log has
// failed or is closed, or the disk is too full for the topic.
func (l *Log) Refuses(topic string) error {
	t, err := l.find(topic, 0)
	switch {
	case err != nil:
		return err
	case l.isStopped():
		return l.stopErr()
	case t.refuse.Load():
		return eventlog.ErrFull
	}
	return nil
}

// put adds a record to the partition's growing chunk. It returns false when the
// log has stopped.
func (p *partition) put(rec eventlog.Record, done eventlog.Completion, cost int64, l *Log) bool {
	first, ok := p.take(rec, done, cost)
	if first {
		l.dirty.add(p)
	}
	return ok
}

// take queues a record for the next commit; if it is the first one the caller has to
// wake the committer.
func (p *partition) take(rec eventlog.Record, done eventlog.Completion, cost int64) (first, ok bool) {
	in := &p.intake
	in.Lock()
	defer in.Unlock()
	if in.closed {
		return false, false
	}
	var c *chunk
	if n := len(in.chunks); n > 0 {
		c = in.chunks[n-1]
	}
	if c == nil || len(c.Data)+int(cost) > chunkBytes {
		c = newChunk(max(in.bytesHint, int(cost)+layout.ChunkHeader), in.countHint)
		in.chunks = append(in.chunks, c)
	}
	c.add(rec, done, cost)
	first = !in.queued
	in.queued = true
	return first, true
}

// takeChunks gives the committer chunks of at most so many bytes, but at
// least one, and reports whether some are left.
func (p *partition) takeChunks(limit int64) (taken []*chunk, left bool) {
	in := &p.intake
	in.Lock()
	defer in.Unlock()
	n := 0
	for n < len(in.chunks) && (n == 0 || limit >= int64(len(in.chunks[n].Data))) {
		limit -= int64(len(in.chunks[n].Data))
		n++
	}
	taken = in.chunks[:n:n]
	if n < len(in.chunks) {
		in.chunks = in.chunks[n:]
		return taken, true
	}
	in.chunks = nil
	in.queued = false
	for _, c := range taken {
		in.bytesHint = recent(in.bytesHint, len(c.Data))
		in.countHint = recent(in.countHint, c.Count)
	}
	return taken, false
}

// recent follows the largest of the last few sizes, with a little to spare.
func recent(hint, size int) int {
	return max(size+size/16, hint-hint/8)
}

// shut takes no more appends and returns what is queued.
func (p *partition) shut() []*chunk {
	in := &p.intake
	in.Lock()
	defer in.Unlock()
	in.closed = true
	taken := in.chunks
	in.chunks = nil
	return taken
}

// failQueued ends the intake and completes everything that is queued with an error.
func (l *Log) failQueued(err error) {
	for _, t := range l.ordered {
		for i := range t.partitions {
			for _, c := range t.partitions[i].shut() {
				l.completeFailed(c, err)
			}
		}
	}
}

func (l *Log) completeFailed(c *chunk, err error) {
	for _, d := range c.done {
		d.Done(0, err)
	}
	c.done = nil
	l.capacity.release(c.cost)
	l.metrics.lost.Add(float64(c.Count))
}

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
