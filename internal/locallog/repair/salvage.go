package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// salvage copies every chunk that can be read from the files of the record store
// into another store, whatever its MANIFEST states: chunks never change, so what an
// obsolete file holds is as good. It returns the least append time of each
// segment.
func (d *directory) salvage(ctx context.Context, into *pebble.DB) (map[uint64]int64, error) {
	s := &salvaging{d: d, into: into, times: make(map[uint64]int64), batch: into.NewBatch()}
	dir := d.fs.PathJoin(d.path, ends.Records.String())
	names, err := d.fs.List(dir)
	if err != nil {
		names = nil // the whole store is gone
	}
	slices.Sort(names)
	for _, name := range names {
		path := d.fs.PathJoin(dir, name)
		var err error
		switch {
		case strings.HasSuffix(name, ".sst"):
			err = s.table(ctx, path)
		case strings.HasSuffix(name, ".log"):
			err = s.log(path)
		}
		if s.failure != nil {
			return nil, s.failure
		}
		if err != nil {
			d.logger.Warn("a file of the record store can't be read in full", "file", path, "error", err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return s.times, s.flush()
}

type salvaging struct {
	d       *directory
	into    *pebble.DB
	batch   *pebble.Batch
	times   map[uint64]int64
	failure error // of the new store: the repair can't go on
}

// take keeps a chunk that is sound.
func (s *salvaging) take(key, value []byte) {
	k, err := layout.ParseChunkKey(key)
	if err != nil {
		return // a segment's header: they are made anew
	}
	c, err := layout.ParseChunk(k.Base, value)
	if err == nil {
		_, err = c.AppendRecords(nil, c.End())
	}
	if err != nil || k.Topic < 1 || int(k.Topic) > len(s.d.facts.TopicIDs) || int(k.Partition) >= s.d.facts.Partitions {
		s.d.logger.Warn("a chunk is not sound", "key", fmt.Sprintf("%x", key), "error", err)
		return
	}
	if time, ok := s.times[k.Segment]; !ok || c.TimeMS < time {
		s.times[k.Segment] = c.TimeMS
	}
	if err := s.batch.Set(key, value, nil); err != nil {
		s.failure = err
	}
	if s.batch.Len() > 4<<20 {
		s.failure = errors.Join(s.failure, s.flush())
	}
}

func (s *salvaging) flush() error {
	err := errors.Join(s.into.Apply(s.batch, pebble.NoSync), s.batch.Close())
	s.batch = s.into.NewBatch()
	return err
}

// log reads a write-ahead log, and goes on behind what can't be read at the next
// block.
func (s *salvaging) log(path string) error {
	const block = 32 << 10
	data, err := s.readFile(path)
	if err != nil {
		return err
	}
	number, ok := layout.LogNumber(s.d.fs.PathBase(path))
	if !ok {
		return fmt.Errorf("%s is not called as a log", path)
	}
	var faults error
	for from := 0; from < len(data); {
		rr := newReader(record.NewReader, bytes.NewReader(data[from:]), number)
		good := int64(0)
		for {
			good = rr.Offset()
			r, err := rr.Next()
			var batch []byte
			if err == nil {
				batch, err = io.ReadAll(r)
			}
			if errors.Is(err, io.EOF) {
				return faults
			}
			if err != nil {
				if faults == nil && !errors.Is(err, record.ErrUnexpectedEOF) {
					faults = fmt.Errorf("at byte %d: %w", int64(from)+good, err)
				}
				break
			}
			s.takeBatch(batch)
		}
		from = (from+int(good))/block*block + block
	}
	return faults
}

// newReader calls record.NewReader, whose second parameter has a type that can't
// be named outside of Pebble.
func newReader[N ~uint64](open func(io.Reader, N) *record.Reader, r io.Reader, number uint64) *record.Reader {
	return open(r, N(number))
}

func (s *salvaging) takeBatch(repr []byte) {
	var b pebble.Batch
	if b.SetRepr(repr) != nil {
		return
	}
	reader := b.Reader()
	for {
		kind, key, value, more, err := reader.Next()
		if err != nil || !more {
			return
		}
		if kind == pebble.InternalKeyKindSet {
			s.take(key, value)
		}
	}
}

func (s *salvaging) readFile(path string) ([]byte, error) {
	f, err := s.d.fs.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// table reads a table, and goes on behind a block that can't be read.
func (s *salvaging) table(ctx context.Context, path string) (err error) {
	f, err := s.d.fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o := s.d.options(&pebble.Options{})
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var faults error
	for lower := []byte{}; lower != nil; {
		last, err := s.run(r, lower)
		if err == nil {
			return faults
		}
		if faults == nil {
			faults = err
		}
		lower = s.behind(r, last)
	}
	return faults
}

// run reads a table from a key on and returns the last key that it has read.
func (s *salvaging) run(r *sstable.Reader, lower []byte) (last []byte, err error) {
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return lower, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	last = lower
	for kv := it.SeekGE(lower, 0); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return last, err
		}
		last = bytes.Clone(kv.K.UserKey)
		s.take(last, value)
	}
	return last, it.Error()
}

// behind returns a key behind last from which the table can be read again, or nil.
func (s *salvaging) behind(r *sstable.Reader, last []byte) []byte {
	return layout.Behind(last, s.d.facts, func(k []byte) bool {
		it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
		if err != nil {
			return false
		}
		it.SeekGE(k, 0)
		return errors.Join(it.Error(), it.Close()) == nil
	})
}
