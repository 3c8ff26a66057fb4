package memlog

import (
	"context"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
)

type position struct {
	partition int32
	next      int64
}

// reader takes its partitions in turn: the one it has read goes to the back.
type reader struct {
	log       *Log
	topic     *topicData
	positions []position
	closed    bool
}

// Poll implements eventlog.Reader.
func (r *reader) Poll(ctx context.Context) (eventlog.Batch, error) {
	for {
		switch {
		case r.closed:
			return eventlog.Batch{}, eventlog.ErrClosed
		case r.log.isClosed():
			return eventlog.Batch{}, r.log.closedErr()
		case ctx.Err() != nil:
			return eventlog.Batch{}, ctx.Err()
		}
		batch, grown, err := r.next()
		if err != nil || len(batch.Records) > 0 {
			return batch, err
		}
		select {
		case <-grown:
		case <-r.log.gone:
		case <-ctx.Done():
		}
	}
}

// next returns what the first partition that has records returns, or what to wait for.
func (r *reader) next() (eventlog.Batch, <-chan struct{}, error) {
	if r.topic == nil {
		return eventlog.Batch{}, nil, nil
	}
	s := r.log.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, pos := range r.positions {
		p := &r.topic.partitions[pos.partition]
		if pos.next < p.first {
			return eventlog.Batch{}, nil, &eventlog.TruncatedError{Topic: r.topic.decl.Name, Partition: pos.partition, Want: pos.next, First: p.first}
		}
		if pos.next > p.end() {
			return eventlog.Batch{}, nil, fmt.Errorf("read topic %s partition %d: offset %d is beyond its end %d", r.topic.decl.Name, pos.partition, pos.next, p.end())
		}
		if pos.next == p.end() {
			continue
		}
		from := int(pos.next - p.first)
		to := min(from+r.log.opts.MaxBatch, len(p.records))
		r.positions = append(append(r.positions[:i:i], r.positions[i+1:]...), position{pos.partition, p.first + int64(to)})
		return eventlog.Batch{Partition: pos.partition, Records: p.records[from:to:to], End: p.end()}, nil, nil
	}
	return eventlog.Batch{}, r.topic.grown, nil
}

// Close implements eventlog.Reader.
func (r *reader) Close() error {
	r.closed = true
	return nil
}
