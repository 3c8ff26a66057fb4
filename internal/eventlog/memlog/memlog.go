package memlog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Options are the hooks of one Log. The zero value has none. A hook that
// blocks delays only its own partition.
type Options struct {
	// Now is the clock that stamps records; nil means time.Now.
	Now func() time.Time
	// BufferBytes bounds the keys and values queued; zero means 64 MiB.
	BufferBytes int64
	// BeforeAppend is called before a record is stored. Its error is the
	// record's outcome, and the record is not stored.
	BeforeAppend func(topic string, partition int32, rec eventlog.Record) error
	// AfterAppend is called after a record was stored and made visible, before
	// its completion. Its error is what the completion receives.
	AfterAppend func(topic string, partition int32, rec eventlog.Stored) error
	// BeforeLoad is called before a claim is loaded; its error is Load's.
	BeforeLoad func(spec eventlog.OwnSpec, partition int32) error
	// BeforeCheckpoint is called before a checkpoint is stored; its error is
	// Checkpoint's, and nothing is stored.
	BeforeCheckpoint func(spec eventlog.OwnSpec, partition int32, changes []eventlog.Record, resume int64) error
	// AfterCheckpoint is called after a checkpoint was stored; its error is
	// Checkpoint's.
	AfterCheckpoint func(spec eventlog.OwnSpec, partition int32, changes []eventlog.Record, resume int64) error
	// MayStepBack lets append times step back with Now, as between brokers of
	// a cluster. Otherwise they stay where they were.
	MayStepBack bool
	// MaxBatch bounds the records that one Poll returns; zero means 1,000.
	MaxBatch int
}

// Log implements eventlog.Log on a Store. It is safe for concurrent use.
type Log struct {
	store    *Store
	opts     Options
	capacity *semaphore.Weighted
	gone     chan struct{} // closed by Close and Kill

	failed chan struct{} // closed by Fail

	mu      sync.Mutex
	closed  bool
	killed  bool
	failure error // set by Fail
	queues  map[queueKey]*queue
	wg      sync.WaitGroup
}

var _ eventlog.Log = (*Log)(nil)

type queueKey struct {
	topic     string
	partition int32
}

// queue holds the appends of one partition; Log.mu guards it.
type queue struct {
	pending []pending
	wake    chan struct{} // capacity 1
}

type pending struct {
	rec  eventlog.Record
	done eventlog.Completion
}

func (p pending) size() int64 { return int64(len(p.rec.Key) + len(p.rec.Value)) }

// New returns a log on an empty store with all of Starling's topics.
func New(partitions int32, opts Options) *Log {
	return Open(NewStore(partitions, topics.All(), 0), opts)
}

// Open returns a log on what a store holds, like a process that has started.
func Open(store *Store, opts Options) *Log {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.BufferBytes == 0 {
		opts.BufferBytes = 64 << 20
	}
	if opts.MaxBatch == 0 {
		opts.MaxBatch = 1000
	}
	return &Log{store: store, opts: opts, capacity: semaphore.NewWeighted(opts.BufferBytes), gone: make(chan struct{}), failed: make(chan struct{}), queues: make(map[queueKey]*queue)}
}

// Store returns what the log is opened on.
func (l *Log) Store() *Store { return l.store }

// Partitions implements eventlog.Log.
func (l *Log) Partitions() int32 { return l.store.partitions }

// Epoch implements eventlog.Log.
func (l *Log) Epoch() int64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.epoch
}

// Append implements eventlog.Appender.
func (l *Log) Append(ctx context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	t, err := l.topic(topic, partition)
	if err != nil {
		return err
	}
	a := pending{rec: rec, done: done}
	if a.size() > int64(t.decl.MaxRecordBytes) {
		return fmt.Errorf("append to %s partition %d: %d bytes: %w", topic, partition, a.size(), eventlog.ErrTooLarge)
	}
	if err := l.acquire(ctx, min(a.size(), l.opts.BufferBytes)); err != nil {
		return fmt.Errorf("append to %s partition %d: %w", topic, partition, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.capacity.Release(min(a.size(), l.opts.BufferBytes))
		return l.goneErr()
	}
	key := queueKey{topic, partition}
	q := l.queues[key]
	if q == nil {
		q = &queue{wake: make(chan struct{}, 1)}
		l.queues[key] = q
		l.wg.Add(1)
		go l.drain(t, partition, q)
	}
	q.pending = append(q.pending, a)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// acquire waits for capacity in the buffer.
func (l *Log) acquire(ctx context.Context, n int64) error {
	if l.capacity.TryAcquire(n) {
		return nil
	}
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-l.gone:
			cancel(l.closedErr())
		case <-stop:
		}
	}()
	if err := l.capacity.Acquire(both, n); err != nil {
		return context.Cause(both)
	}
	return nil
}

// drain is the one goroutine that stores the appends of a partition. After
// Close it fails what is still queued; after Kill it leaves everything as is.
func (l *Log) drain(t *topicData, partition int32, q *queue) {
	defer l.wg.Done()
	for {
		l.mu.Lock()
		batch, closed, killed := q.pending, l.closed, l.killed
		q.pending = nil
		l.mu.Unlock()
		switch {
		case killed, closed && len(batch) == 0:
			return
		case len(batch) == 0:
			select {
			case <-q.wake:
			case <-l.gone:
			}
		}
		for _, a := range batch {
			offset, err := l.storeOne(t, partition, a)
			if l.isKilled() {
				return
			}
			l.capacity.Release(min(a.size(), l.opts.BufferBytes))
			a.done.Done(offset, err)
		}
	}
}

func (l *Log) storeOne(t *topicData, partition int32, a pending) (int64, error) {
	if l.isClosed() {
		return 0, l.closedErr()
	}
	if l.opts.BeforeAppend != nil {
		if err := l.opts.BeforeAppend(t.decl.Name, partition, a.rec); err != nil {
			return 0, err
		}
	}
	if l.isKilled() {
		return 0, eventlog.ErrClosed
	}
	st := l.store.append(t, partition, a.rec, l.opts.Now(), l.opts.MayStepBack)
	if l.opts.AfterAppend != nil {
		if err := l.opts.AfterAppend(t.decl.Name, partition, st); err != nil {
			return 0, err
		}
	}
	return st.Offset, nil
}

// Bounds implements eventlog.Log.
func (l *Log) Bounds(_ context.Context, topic string) ([]eventlog.Bounds, error) {
	t, err := l.topic(topic, 0)
	if err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, l.closedErr()
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	out := make([]eventlog.Bounds, l.store.partitions)
	for i := range out {
		p := &t.partitions[i]
		out[i] = eventlog.Bounds{First: p.first, End: p.end()}
	}
	return out, nil
}

// NewReader implements eventlog.Log.
func (l *Log) NewReader(_ context.Context, topic string, start map[int32]int64) (eventlog.Reader, error) {
	r := &reader{log: l}
	for p, offset := range start {
		t, err := l.topic(topic, p)
		if err != nil {
			return nil, err
		}
		r.topic = t
		r.positions = append(r.positions, position{partition: p, next: offset})
	}
	if _, err := l.topic(topic, 0); err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, l.closedErr()
	}
	slices.SortFunc(r.positions, func(a, b position) int { return int(a.partition - b.partition) })
	return r, nil
}

// Close implements eventlog.Log. It waits until the append that is being
// stored is done; those behind it fail with ErrClosed.
func (l *Log) Close() error {
	l.stop(false, nil)
	l.wg.Wait()
	return l.Err()
}

// Fail makes the log fail as by damage: see eventlog.Log's Failed. What is in the
// store stays.
func (l *Log) Fail(err error) {
	if l.stop(false, err) {
		close(l.failed)
	}
}

// Failed implements eventlog.Log.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err implements eventlog.Log.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// closedErr reports why the log takes no more calls.
func (l *Log) closedErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.goneErr()
}

// goneErr is closedErr with mu held.
func (l *Log) goneErr() error {
	if l.failure != nil {
		return l.failure
	}
	return eventlog.ErrClosed
}

// Kill ends the log as kill -9 ends a process: appends that are queued are
// forgotten and their completions never called, claims are lost. What is in the
// store stays. It does not wait for hooks that block.
func (l *Log) Kill() { l.stop(true, nil) }

// stop reports whether the log was open until now.
func (l *Log) stop(kill bool, failure error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed, l.killed, l.failure = true, kill, failure
	close(l.gone)
	return true
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Log) isKilled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed
}

func (l *Log) topic(name string, partition int32) (*topicData, error) {
	t := l.store.topics[name] // never changed after NewStore
	if t == nil || partition < 0 || partition >= l.store.partitions {
		return nil, fmt.Errorf("%w: %s partition %d of %d", eventlog.ErrUnknownTopic, name, partition, l.store.partitions)
	}
	return t, nil
}
