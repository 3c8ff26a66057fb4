package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// recordOverheadBytes is what a queued record costs beside its key and value,
// so that tiny records don't outgrow the bound.
const recordOverheadBytes = 256

// pending is an append under way. It travels as its record's context, which
// spares a closure for every record: the one promise function finds it there.
// It is pooled, and clean when it goes back.
type pending struct {
	record kgo.Record
	topic  *topic
	done   eventlog.Completion
	bytes  int64
}

// Deadline, Done, Err and Value make a pending a context that never ends.
func (p *pending) Deadline() (time.Time, bool) { return time.Time{}, false }
func (p *pending) Done() <-chan struct{}       { return nil }
func (p *pending) Err() error                  { return nil }
func (p *pending) Value(any) any               { return nil }

var _ context.Context = (*pending)(nil)

// Append implements eventlog.Appender.
func (l *Log) Append(ctx context.Context, name string, partition int32, rec eventlog.Record, done eventlog.Completion) error {
	t, err := l.topic(name, partition)
	if err != nil {
		return err
	}
	size := len(rec.Key) + len(rec.Value)
	if size > t.maxBytes {
		l.metrics.errors[classTooLarge].Inc()
		return fmt.Errorf("append %d bytes to topic %s, which takes %d: %w", size, name, t.maxBytes, eventlog.ErrTooLarge)
	}
	bytes := int64(size + recordOverheadBytes)
	if err := l.buffer.Acquire(ctx, bytes); err != nil {
		return fmt.Errorf("append to topic %s: the buffer is full: %w", name, err)
	}
	p := l.pool.Get().(*pending)
	p.topic, p.done, p.bytes = t, done, bytes
	p.record = kgo.Record{Topic: t.physical, Partition: partition, Key: rec.Key, Value: rec.Value, Context: p}

	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.closed {
		l.release(p)
		return eventlog.ErrClosed
	}
	l.metrics.buffered.Add(float64(bytes))
	// It cannot block: the client's own bounds are out of reach. Neither can
	// ctx end it any more, because the record is in the log's hands now.
	l.producer.Produce(p, &p.record, l.promise)
	return nil
}

// finish receives the outcome of every record, in the order of its partition.
//
// When a broker refuses a batch, or its time is up, the client fails everything
// that it then holds of the partition, so that no sequence number is left out,
// and goes on with what it is given afterwards. What is appended between that
// moment and the first call of finish is stored, behind records that are not:
// the client has no way to be asked in between. Writers to whom order matters
// therefore stop at the first failure, and their readers follow a chain.
func (l *Log) finish(r *kgo.Record, err error) {
	p := r.Context.(*pending)
	done, offset := p.done, r.Offset
	if err == nil {
		p.topic.appended.Inc()
	} else {
		err = l.appendError(p.topic, r.Partition, err)
		offset = -1
	}
	l.metrics.buffered.Sub(float64(p.bytes))
	l.release(p)
	done.Done(offset, err)
}

func (l *Log) release(p *pending) {
	bytes := p.bytes
	*p = pending{}
	l.pool.Put(p)
	l.buffer.Release(bytes)
}

// appendError translates and counts an error. All but ErrTooLarge leave open
// whether the record is in the log: the client gives up a record that it has
// sent only when a broker has refused it, but a refusal may concern a retry.
func (l *Log) appendError(t *topic, partition int32, err error) error {
	class := classBroker
	switch {
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kgo.ErrAborting):
		class, err = classClosed, fmt.Errorf("%w: %w", eventlog.ErrClosed, err)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		class, err = classTooLarge, fmt.Errorf("%w: %w", eventlog.ErrTooLarge, err)
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		class = classTimeout
	}
	l.metrics.errors[class].Inc()
	return fmt.Errorf("append to topic %s partition %d: %w", t.physical, partition, err)
}
