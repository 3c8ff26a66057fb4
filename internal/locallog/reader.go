package locallog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// reader takes its partitions in turn: the one it has read goes to the back.
type reader struct {
	log    *Log
	places []*readPlace // in the order of their turns
	wake   chan struct{}
	closed bool
}

type readPlace struct {
	partition *partition
	next      int64 // offset to read
}

// NewReader implements eventlog.Log. An offset beyond the end is refused: it
// stems from records that this log does not have.
func (l *Log) NewReader(_ context.Context, topic string, start map[int32]int64) (eventlog.Reader, error) {
	t, err := l.find(topic, 0)
	if err != nil {
		return nil, err
	}
	if l.isStopped() {
		return nil, l.stopErr()
	}
	r := &reader{log: l, wake: make(chan struct{}, 1)}
	for number, offset := range start {
		if _, err := l.find(topic, number); err != nil {
			return nil, err
		}
		p := &t.partitions[number]
		if !p.readable(offset) {
			return nil, fmt.Errorf("read %s partition %d: offset %d is not between 0 and the end %d", topic, number, offset, p.bounds().End)
		}
		r.places = append(r.places, &readPlace{p, offset})
	}
	slices.SortFunc(r.places, func(a, b *readPlace) int { return int(a.partition.number - b.partition.number) })
	return r, nil
}

// wakeUp makes a Poll that waits look again.
func (r *reader) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Poll implements eventlog.Reader. Records of a partition come in batches of
// about a thousand from memory and a megabyte from disk.
func (r *reader) Poll(ctx context.Context) (eventlog.Batch, error) {
	for {
		switch {
		case r.closed:
			return eventlog.Batch{}, eventlog.ErrClosed
		case r.log.isStopped():
			return eventlog.Batch{}, r.log.stopErr()
		case ctx.Err() != nil:
			return eventlog.Batch{}, ctx.Err()
		}
		for i, place := range r.places {
			batch, err := r.read(place)
			if err != nil {
				return batch, err
			}
			if len(batch.Records) > 0 {
				copy(r.places[i:], r.places[i+1:])
				r.places[len(r.places)-1] = place
				return batch, nil
			}
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
		case <-r.log.stopped:
		}
	}
}

// Close implements eventlog.Reader.
func (r *reader) Close() error {
	r.closed = true
	for _, place := range r.places {
		p := place.partition
		p.shown.Lock()
		p.waiters = slices.DeleteFunc(p.waiters, func(other *reader) bool { return other == r })
		p.shown.Unlock()
	}
	return nil
}

// read returns what a partition has to offer, or an empty batch.
func (r *reader) read(place *readPlace) (eventlog.Batch, error) {
	p := place.partition
	place.next = r.log.gaps.skip(p.index(), place.next)
	g := p.look(place.next, r)
	if place.next < g.first {
		return eventlog.Batch{}, p.truncated(place.next, g.first)
	}
	if place.next >= g.end {
		return eventlog.Batch{}, nil
	}
	chunks := g.chunks
	if len(chunks) == 0 {
		var err error
		if chunks, err = r.log.fetch(p, place.next, g.end); err != nil {
			return eventlog.Batch{}, err
		}
	}
	records, err := join(chunks, place.next)
	if err != nil {
		return eventlog.Batch{}, fmt.Errorf("read %s partition %d: %w", p.topic.decl.Name, p.number, err)
	}
	place.next = records[len(records)-1].Offset + 1
	return eventlog.Batch{Partition: p.number, Records: records, End: g.end}, nil
}

func (p *partition) truncated(want, first int64) error {
	return &eventlog.TruncatedError{Topic: p.topic.decl.Name, Partition: p.number, Want: want, First: first}
}

// join returns the records of consecutive chunks from an offset on.
func join(chunks []*chunk, from int64) ([]eventlog.Stored, error) {
	total := chunks[0].Base - from
	for _, c := range chunks {
		total += int64(c.Count)
	}
	out := make([]eventlog.Stored, 0, total)
	var err error
	for _, c := range chunks {
		if out, err = c.AppendRecords(out, from); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fetch reads durable chunks of a partition from disk: the one that holds an
// offset and those behind it, about a megabyte.
func (l *Log) fetch(p *partition, from, end int64) ([]*chunk, error) {
	if !l.calls.enter() {
		return nil, l.stopErr()
	}
	var chunks []*chunk
	err := l.apart(func(*reading) (err error) {
		defer l.calls.leave()
		chunks, err = l.scan(p, from, end)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s partition %d from offset %d: %w", p.topic.decl.Name, p.number, from, err)
	}
	// Retention may have passed by.
	if first := p.bounds().First; from < first {
		return nil, p.truncated(from, first)
	}
	if len(chunks) == 0 || chunks[0].Base > from {
		err := fmt.Errorf("read %s partition %d: offset %d is missing from the store", p.topic.decl.Name, p.number, from)
		l.fail(err)
		return nil, l.Err()
	}
	l.metrics.fetched.Inc()
	return chunks, nil
}

func (l *Log) scan(p *partition, from, end int64) (chunks []*chunk, err error) {
	number, last, ok := l.segments.holding(p.topic.index+int(p.number), from)
	if !ok {
		return nil, nil
	}
	bounds := func(segment uint64) (lower, upper []byte) {
		return layout.PartitionKey(segment, p.topic.id, uint32(p.number)), layout.PartitionKey(segment, p.topic.id, uint32(p.number)+1)
	}
	lower, upper := bounds(number)
	it, err := l.records.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	size := 0
	ok = it.SeekLT(layout.AppendChunkKey(nil, number, p.topic.id, uint32(p.number), from+1))
	for size < pollBytes {
		for ; ok && size < pollBytes; ok = it.Next() {
			key, err := layout.ParseChunkKey(it.Key())
			if err != nil {
				return nil, err
			}
			base := key.Base
			if base >= end {
				return chunks, nil // not durable yet
			}
			value, err := it.ValueAndErr()
			if err != nil {
				return nil, err
			}
			c, err := parseChunk(base, bytes.Clone(value))
			if err != nil {
				return nil, err
			}
			chunks = append(chunks, c)
			size += len(c.Data)
		}
		if err := it.Error(); err != nil || number >= last {
			return chunks, err
		}
		if number, ok = l.segments.behind(number); !ok {
			return chunks, nil
		}
		it.SetBounds(bounds(number))
		ok = it.First()
	}
	return chunks, nil
}
