package kafkalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// storedOverheadBytes is what a record that was read ahead costs beside its
// key and value.
const storedOverheadBytes = 72

// reader is a queue between the fetcher's goroutine and its own reader's. It
// asks for nothing until it is first polled.
type reader struct {
	log     *Log
	topic   *topic
	fetcher *fetcher
	lanes   []*lane
	keys    []lanekey
	begun   bool // fetching has started; Poll's goroutine alone

	mu     sync.Mutex
	queue  []item
	failed error // ends every later Poll
	closed bool
	wake   chan struct{} // capacity 1: the queue has grown, or the reader was closed
}

// item is a batch, or the error that ends a lane.
type item struct {
	lane  *lane
	batch eventlog.Batch
	bytes int
	err   error
}

// lane is one partition of a reader. Its reader's mutex guards what changes.
type lane struct {
	key    lanekey
	reader *reader
	next   int64 // offset to read next: after what was queued
	queued int   // bytes
	paused bool
}

// NewReader implements eventlog.Log. Readers share clients; see fetcher.
func (l *Log) NewReader(_ context.Context, name string, start map[int32]int64) (eventlog.Reader, error) {
	r := &reader{log: l, wake: make(chan struct{}, 1)}
	for _, p := range slices.Sorted(maps.Keys(start)) {
		t, err := l.topic(name, p)
		if err != nil {
			return nil, err
		}
		if start[p] < 0 {
			return nil, fmt.Errorf("read topic %s partition %d: offset %d: must not be negative", name, p, start[p])
		}
		r.topic = t
		key := lanekey{t.physical, p}
		r.keys = append(r.keys, key)
		r.lanes = append(r.lanes, &lane{key: key, reader: r, next: start[p]})
	}
	if len(r.lanes) == 0 {
		if _, err := l.topic(name, 0); err != nil {
			return nil, err
		}
	}
	var err error
	if r.fetcher, err = l.fetchers.take(r.keys); err != nil {
		return nil, err
	}
	return r, nil
}

// Poll implements eventlog.Reader. After it has failed with anything but ctx's
// error it fails so for ever.
func (r *reader) Poll(ctx context.Context) (eventlog.Batch, error) {
	if !r.begun {
		r.begun = true
		r.fetcher.exec(func() { r.fetcher.add(r.lanes) })
	}
	for {
		it, err := r.pop()
		switch {
		case err != nil:
			return eventlog.Batch{}, err
		case it.err != nil:
			return eventlog.Batch{}, r.fail(r.explain(ctx, it))
		case it.lane != nil:
			r.topic.fetched.Add(float64(len(it.batch.Records)))
			return it.batch, nil
		}
		select {
		case <-r.wake:
		case <-r.log.gone:
			return eventlog.Batch{}, r.fail(eventlog.ErrClosed)
		case <-ctx.Done():
			return eventlog.Batch{}, ctx.Err()
		}
	}
}

// pop takes the oldest item, or one without a lane if there is none.
func (r *reader) pop() (item, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.log.isClosed() {
		return item{}, eventlog.ErrClosed
	}
	if r.failed != nil || len(r.queue) == 0 {
		return item{}, r.failed
	}
	it := r.queue[0]
	r.queue[0] = item{}
	if r.queue = r.queue[1:]; len(r.queue) == 0 {
		r.queue = nil
	}
	l := it.lane
	l.queued -= it.bytes
	// Resuming late makes few pauses of many: what the client had fetched
	// ahead of a pause is thrown away and fetched again.
	if l.paused && l.queued <= r.log.cfg.ReaderBufferBytes/4 {
		l.paused = false
		r.fetcher.resume(l.key)
	}
	return it, nil
}

func (r *reader) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
	return r.failed
}

// explain turns the client's error into the contract's.
func (r *reader) explain(ctx context.Context, it item) error {
	want := it.lane.next
	if !isOutOfRange(it.err) {
		return fmt.Errorf("read topic %s partition %d at offset %d: %w", r.topic.name, it.lane.key.partition, want, it.err)
	}
	bounds, err := r.log.Bounds(ctx, r.topic.name)
	if err != nil {
		return fmt.Errorf("read topic %s partition %d: offset %d is not there, and neither are its bounds: %w", r.topic.name, it.lane.key.partition, want, err)
	}
	b := bounds[it.lane.key.partition]
	if want < b.First {
		return &eventlog.TruncatedError{Topic: r.topic.name, Partition: it.lane.key.partition, Want: want, First: b.First}
	}
	return fmt.Errorf("read topic %s partition %d: offset %d is beyond the end %d: the log was shortened, raise its epoch: %w", r.topic.name, it.lane.key.partition, want, b.End, it.err)
}

// Close implements eventlog.Reader.
func (r *reader) Close() error {
	r.mu.Lock()
	already := r.closed
	r.closed = true
	r.queue = nil
	r.mu.Unlock()
	if already {
		return nil
	}
	r.nudge()
	r.fetcher.exec(func() {
		for _, l := range r.lanes {
			r.fetcher.drop(l)
		}
	})
	r.log.fetchers.give(r.fetcher, r.keys)
	return nil
}

func (r *reader) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// push queues a batch. It is called by the fetcher's goroutine.
func (l *lane) push(p kgo.FetchPartition) {
	records := make([]eventlog.Stored, len(p.Records))
	bytes := 0
	for i, r := range p.Records {
		records[i] = eventlog.Stored{Offset: r.Offset, AppendTimeMS: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		bytes += len(r.Key) + len(r.Value) + storedOverheadBytes
	}
	last := records[len(records)-1].Offset
	end := p.HighWatermark
	if p.LastStableOffset >= 0 {
		end = min(end, p.LastStableOffset)
	}
	batch := eventlog.Batch{Partition: l.key.partition, Records: records, End: max(end, last+1)}

	r := l.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	l.next = last + 1
	r.queue = append(r.queue, item{lane: l, batch: batch, bytes: bytes})
	l.queued += bytes
	if !l.paused && l.queued >= r.log.cfg.ReaderBufferBytes {
		l.paused = true
		r.fetcher.pause(l.key)
	}
	r.nudge()
}

// pushError queues the end of a lane behind what was read before it.
func (l *lane) pushError(err error) {
	r := l.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.queue = append(r.queue, item{lane: l, err: err})
		r.nudge()
	}
}
