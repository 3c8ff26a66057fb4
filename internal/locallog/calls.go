package locallog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// patience is the number of ticks for which a read of about a megabyte may take.
// Ticks that pass while the process stands still do not add up.
const patience = 10

// errSlowRead fails the log: a disk that does not answer, or a damaged block in
// which Pebble looks for a flipped bit, which takes a minute for half a megabyte.
var errSlowRead = errors.New("a read does not end: the disk does not answer, or a large block is damaged (`starling log check` names it)")

// reading is how a read gets on.
type reading struct {
	ticks  atomic.Int32 // since it last made progress
	parked atomic.Bool  // waits for who takes what was read
}

func (r *reading) park()   { r.parked.Store(true) }
func (r *reading) unpark() { r.ticks.Store(0); r.parked.Store(false) }

// apart runs a read of a store in a goroutine of its own and waits for it, or
// for the log's failure: Pebble may stop a goroutine for good, and the caller is
// to go on then. After an error fn may still run: what it has filled in is not to
// be used. Damage that it meets fails the log, and so does its taking too long.
func (l *Log) apart(fn func(r *reading) error) error {
	answer := make(chan error, 1)
	var r reading
	go func() {
		defer l.recoverStore()
		answer <- fn(&r)
	}()
	tick := time.NewTicker(l.env.readTick)
	defer tick.Stop()
	for {
		select {
		case err := <-answer:
			if errors.Is(err, pebble.ErrCorruption) || errors.Is(err, layout.ErrChunk) {
				l.fail(err)
			}
			if err != nil && l.Err() != nil {
				return errors.Join(l.Err(), err)
			}
			return err
		case <-l.failed:
			return l.Err()
		case <-tick.C:
			if !r.parked.Load() && r.ticks.Add(1) > patience {
				l.fail(errSlowRead)
			}
		}
	}
}

// pair is a key and a value of a claim's state.
type pair struct{ key, value []byte }

// pairsBytes is about how much of a claim's state is read before it is handed
// over.
const pairsBytes = 256 << 10

// values calls fn with the state of a claim, in the caller's goroutine.
func (l *Log) values(ctx context.Context, id layout.ClaimID, fn func(key, value []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handed := make(chan []pair, 1)
	read := make(chan error, 1)
	go func() {
		read <- l.apart(func(r *reading) error {
			defer close(handed)
			return l.readValues(ctx, id, r, handed)
		})
	}()
	for {
		select {
		case pairs, more := <-handed:
			if !more {
				return <-read
			}
			for _, p := range pairs {
				if err := fn(p.key, p.value); err != nil {
					return l.stopReading(cancel, read, err)
				}
			}
		case <-l.stopped:
			return l.stopReading(cancel, read, l.stopErr())
		case <-ctx.Done():
			return l.stopReading(cancel, read, ctx.Err())
		}
	}
}

// stopReading ends a reading for a reason, and waits until the store is free of
// it, unless the log has failed.
func (l *Log) stopReading(cancel func(), read <-chan error, reason error) error {
	cancel()
	if err := <-read; err != nil && !errors.Is(err, context.Canceled) { // apart does not outlast the log's failure
		return errors.Join(reason, err)
	}
	return reason
}

func (l *Log) readValues(ctx context.Context, id layout.ClaimID, r *reading, handed chan<- []pair) (err error) {
	prefix := layout.ClaimKey('s', id)
	it, err := l.state.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: layout.After(prefix)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	hand := func(pairs []pair) error {
		r.park()
		defer r.unpark()
		select {
		case handed <- pairs:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var pairs []pair
	size := 0
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("value of %x: %w", it.Key(), err)
		}
		pairs = append(pairs, pair{bytes.Clone(it.Key()[len(prefix):]), bytes.Clone(value)})
		if size += len(it.Key()) + len(value); size < pairsBytes {
			continue
		}
		if err := hand(pairs); err != nil {
			return err
		}
		pairs, size = nil, 0
	}
	if err := it.Error(); err != nil {
		return err
	}
	return hand(pairs)
}

// calls counts the calls that use the stores beside the workers, so that Close
// can wait for them.
type calls struct {
	mu    sync.Mutex
	n     int
	ended bool
	idle  chan struct{} // closed when ended and none is left
}

// enter reports whether a call may begin; leave follows it then.
func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.n++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.ended && c.n == 0 {
		close(c.idle)
	}
}

// end lets no further call in and returns what is closed when all have left.
// It is called once.
func (c *calls) end() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.idle = true, make(chan struct{})
	if c.n == 0 {
		close(c.idle)
	}
	return c.idle
}
