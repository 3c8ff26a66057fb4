package tracker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// logFailure is returned when the log did not store a record or a checkpoint. The
// partition is given up and taken up again from its last checkpoint: what was
// published since is published again, byte for byte.
type logFailure struct{ err error }

func (e *logFailure) Error() string { return e.err.Error() }

func (e *logFailure) Unwrap() error { return e.err }

// appends counts the records that were appended to one partition of one topic,
// and those that the log has acknowledged. The owner's goroutine appends; the log completes.
type appends struct {
	topic     string
	partition int32
	log       eventlog.Appender
	// appended is the owner's alone.
	appended int64
	acked    atomic.Int64
	// failure is the first that the log reported.
	failure atomic.Pointer[error]
	// wanted is set while the owner waits for progress, which is then signalled
	// (capacity 1).
	wanted  atomic.Bool
	changed chan struct{}
}

func newAppends(log eventlog.Appender, topic string, partition int32) *appends {
	return &appends{topic: topic, partition: partition, log: log, changed: make(chan struct{}, 1)}
}

// Done implements eventlog.Completion for every record: completions come in
// the order of the appends, so it is enough to count them.
func (a *appends) Done(_ int64, err error) {
	switch {
	case err != nil:
		err = fmt.Errorf("append to %s partition %d: %w", a.topic, a.partition, err)
		if a.failure.CompareAndSwap(nil, &err) {
			a.signal()
		}
	case a.failure.Load() == nil:
		a.acked.Add(1)
		if a.wanted.Load() {
			a.signal()
		}
	}
}

func (a *appends) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// failed returns the first failure.
func (a *appends) failed() error {
	if err := a.failure.Load(); err != nil {
		return &logFailure{*err}
	}
	return nil
}

// append hands one record to the log, unless one before it has failed.
func (a *appends) append(ctx context.Context, rec eventlog.Record) error {
	if err := a.failed(); err != nil {
		return err
	}
	if err := a.log.Append(ctx, a.topic, a.partition, rec, a); err != nil {
		return &logFailure{fmt.Errorf("append to %s partition %d: %w", a.topic, a.partition, err)}
	}
	a.appended++
	return nil
}

// reached returns whether the log has acknowledged the first n records; if not,
// changed is signalled until the owner has seen that it has.
func (a *appends) reached(n int64) bool {
	a.wanted.Store(true)
	if a.acked.Load() < n {
		return false
	}
	a.wanted.Store(false)
	return true
}

// wait blocks until the log has acknowledged the first n records.
func (a *appends) wait(ctx context.Context, n int64) error {
	for {
		if err := a.failed(); err != nil {
			return err
		}
		if a.reached(n) {
			return nil
		}
		select {
		case <-a.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chunkBytes is the size of the buffers that track records are encoded into,
// and chunkSpare the free bytes below which the next one is started.
const (
	chunkBytes = 64 << 10
	chunkSpare = 16 << 10
)

var chunkPool = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// chunk is a buffer with records that the log has not yet acknowledged.
type chunk struct {
	array *[chunkBytes]byte
	bytes []byte
	// last is the number of the newest record in it.
	last int64
}

// publisher encodes and appends track records, with a bounded number of bytes
// on their way.
type publisher struct {
	*appends
	chunks       []chunk // oldest first; the last one is being filled
	maxBytes     int
	pendingBytes int
}

func newPublisher(log eventlog.Appender, partition int32, maxBytes int) *publisher {
	return &publisher{appends: newAppends(log, topics.Tracks, partition), maxBytes: maxBytes}
}

// publish appends t under the key, waiting while too much is on its way.
func (p *publisher) publish(ctx context.Context, key []byte, t *wire.Track) error {
	p.retire()
	for p.pendingBytes > p.maxBytes {
		if err := p.wait(ctx, p.chunks[0].last); err != nil {
			return err
		}
		p.retire()
	}
	c := p.chunk()
	start := len(c.bytes)
	c.bytes = t.Append(c.bytes)
	value := c.bytes[start:len(c.bytes):len(c.bytes)]
	p.pendingBytes += len(value)
	c.last = p.appended + 1
	return p.append(ctx, eventlog.Record{Key: key, Value: value})
}

// chunk returns the one to fill.
func (p *publisher) chunk() *chunk {
	if n := len(p.chunks); n > 0 && len(p.chunks[n-1].bytes) <= chunkBytes-chunkSpare {
		return &p.chunks[n-1]
	}
	array := chunkPool.Get().(*[chunkBytes]byte)
	p.chunks = append(p.chunks, chunk{array: array, bytes: array[:0]})
	return &p.chunks[len(p.chunks)-1]
}

// retire frees the chunks whose records the log has acknowledged. The others are
// left to the garbage collector when the partition is given up.
func (p *publisher) retire() {
	acked, n := p.acked.Load(), 0
	for n < len(p.chunks) && p.chunks[n].last <= acked {
		p.pendingBytes -= len(p.chunks[n].bytes)
		chunkPool.Put(p.chunks[n].array)
		n++
	}
	if n > 0 {
		kept := copy(p.chunks, p.chunks[n:])
		clear(p.chunks[kept:])
		p.chunks = p.chunks[:kept]
	}
}

// retryable returns whether a failure may pass.
func retryable(err error) bool {
	var failure *logFailure
	return errors.As(err, &failure) && !errors.Is(err, eventlog.ErrTooLarge) && !errors.Is(err, eventlog.ErrClosed)
}
