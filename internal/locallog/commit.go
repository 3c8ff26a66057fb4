package locallog

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// pipelineDepth is how many groups wait for their sync while the next forms.
// Pebble syncs those that wait together.
const pipelineDepth = 2

// accountDepth is how many groups that are durable in the store wait for the
// account. Those that wait together share one flush of it.
const accountDepth = 4

// group is what one commit stores.
type group struct {
	parts   []part
	records int
	bytes   int64
	timeMS  int64 // append time of its records
	began   time.Time
	batch   *pebble.Batch
}

// part is a group's chunks of one partition.
type part struct {
	partition *partition
	chunks    []*chunk
	end       ends.Place // behind the last chunk
}

// commitLoop is the committer: the only writer of the record store, and the
// owner of offsets and append times.
func (l *Log) commitLoop() {
	defer close(l.finish)
	defer l.recoverStore()
	var pause *time.Timer
	var last time.Time
	for {
		select {
		case <-l.dirty.wake:
		case <-l.stopped:
			return
		}
		if rest := l.cfg.GroupInterval - time.Since(last); rest > 0 {
			if pause == nil {
				pause = time.NewTimer(rest)
			} else {
				pause.Reset(rest)
			}
			select {
			case <-pause.C:
			case <-l.stopped:
				return
			}
		}
		last = time.Now()
		g := l.gather()
		if g == nil {
			continue
		}
		if err := l.write(g); err != nil {
			l.fail(fmt.Errorf("write to the record store: %w", err))
			return
		}
		l.finish <- g // waits while the disk is behind
	}
}

// recoverStore turns a panic of Pebble, which it raises when its write-ahead
// log has failed, into a failure of the log.
func (l *Log) recoverStore() {
	if r := recover(); r != nil {
		l.logger.Error("store panics", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		l.fail(fmt.Errorf("store panics: %v", r))
	}
}

// gather takes what is queued, up to a group's size, partition by partition in
// the order in which they got their first append. From here on the group is in
// flight: its completions are called exactly once, whatever happens.
func (l *Log) gather() *group {
	dirty := l.dirty.take()
	l.flight.Lock()
	defer l.flight.Unlock()
	if l.flight.ended || len(dirty) == 0 {
		return nil
	}
	g := &group{began: time.Now(), parts: make([]part, 0, len(dirty))}
	for i, p := range dirty {
		if g.bytes >= l.cfg.MaxGroupBytes {
			for _, rest := range dirty[i:] {
				l.dirty.add(rest)
			}
			break
		}
		chunks, left := p.takeChunks(l.cfg.MaxGroupBytes - g.bytes)
		if left {
			l.dirty.add(p)
		}
		for _, c := range chunks {
			g.records += c.Count
			g.bytes += int64(len(c.Data))
		}
		g.parts = append(g.parts, part{partition: p, chunks: chunks})
	}
	l.flight.groups = append(l.flight.groups, g)
	return g
}

// write stamps a group and hands it to the record store. It is durable when
// the batch's sync has been waited for; a crash before that leaves it out, or
// a part of the groups before it.
func (l *Log) write(g *group) error {
	l.lastTimeMS = max(l.lastTimeMS, l.clock.nowMS())
	g.timeMS = l.lastTimeMS
	b := l.records.NewBatch(pebble.WithInitialSizeBytes(int(g.bytes)+len(g.parts)*64+4096), pebble.WithMaxRetainedSizeBytes(2*int(l.cfg.MaxGroupBytes)))
	if err := l.roll(b); err != nil {
		return err
	}
	last, _ := l.segments.last()
	number := last.Number
	var key [layout.RecordKeyLen]byte
	for i := range g.parts {
		p := g.parts[i].partition
		for _, c := range g.parts[i].chunks {
			p.next = c.seal(p.next, l.lastTimeMS)
			l.segments.written += int64(len(c.Data)) + chunkOverhead
			k := layout.AppendChunkKey(key[:0], number, p.topic.id, uint32(p.number), c.Base)
			if err := b.Set(k, c.Data, nil); err != nil {
				return err
			}
		}
		g.parts[i].end = p.next
	}
	l.spend(g.bytes)
	g.batch = b
	if l.cfg.Sync {
		return l.records.ApplyNoSyncWait(b, pebble.Sync)
	}
	return l.records.Apply(b, pebble.NoSync)
}

// roll begins a new segment when the last is full or old. Writing the
// memtable out at this point makes tables end where segments end.
func (l *Log) roll(b *pebble.Batch) error {
	s := &l.segments
	var number uint64
	if last, ok := s.last(); ok {
		if s.written < l.cfg.SegmentBytes && l.lastTimeMS-s.startedMS < l.cfg.SegmentAge.Milliseconds() {
			return nil
		}
		number = last.Number + 1
		if _, err := l.records.AsyncFlush(); err != nil {
			return fmt.Errorf("write out segment %d: %w", last.Number, err)
		}
	}
	partitions := len(l.ordered) * l.cfg.Partitions
	next := segment{Segment: layout.Segment{Number: number, TimeMS: l.lastTimeMS, Starts: make([]ends.Place, partitions)}, swept: make([]bool, partitions)}
	for _, t := range l.ordered {
		for i := range t.partitions {
			next.Starts[t.index+i] = t.partitions[i].next
		}
	}
	if err := b.Set(layout.HeaderKey(number), next.Encode(), nil); err != nil {
		return err
	}
	s.Lock()
	s.all = append(s.all, next)
	s.Unlock()
	s.written, s.startedMS = 0, l.lastTimeMS
	return nil
}

// syncLoop waits for the sync of each group, in their order, and hands those that
// are durable in the store to accountLoop. A crash before a group's sync leaves it
// out or in; after that it leaves it in the store and not in the account: it was
// not acknowledged, and the next start takes it in.
func (l *Log) syncLoop() {
	defer close(l.synced)
	for g := range l.finish {
		if l.Err() != nil {
			continue // the failure completes this group and those behind it
		}
		if l.cfg.Sync {
			if err := g.batch.SyncWait(); err != nil {
				l.fail(fmt.Errorf("sync the record store: %w", err))
				continue
			}
		}
		l.synced <- g // waits while the account is behind
	}
}

// accountLoop enters groups in the account, publishes them and completes their
// appends, in their order. Groups whose sync ended while the account was being
// written share its next flush.
func (l *Log) accountLoop() {
	groups := make([]*group, 0, accountDepth+1)
	for g := range l.synced {
		if l.Err() != nil {
			continue
		}
		groups = l.waiting(append(groups[:0], g))
		if err := l.enter(groups); err != nil {
			l.fail(err)
			continue
		}
		for _, g := range groups {
			if !l.complete(g) {
				break // the log has failed
			}
			l.metrics.committed(g)
			if err := g.batch.Close(); err != nil {
				l.logger.Warn("a committed batch does not close", "error", err)
			}
		}
		clear(groups) // keeps no chunk alive
	}
}

// waiting appends the groups that wait for the account, at most accountDepth.
func (l *Log) waiting(groups []*group) []*group {
	for range accountDepth {
		select {
		case g, ok := <-l.synced:
			if !ok {
				return groups
			}
			groups = append(groups, g)
		default:
			return groups
		}
	}
	return groups
}

// enter makes the account hold the ends of groups that are durable in the store.
// After it they may be acknowledged.
func (l *Log) enter(groups []*group) error {
	for _, g := range groups {
		for _, part := range g.parts {
			l.places[part.partition.index()] = part.end
		}
	}
	if !l.cfg.Sync {
		return nil // the account stays that of the start
	}
	l.ends.Update(func(a *ends.Account) {
		for _, g := range groups {
			for _, part := range g.parts {
				a.Places[part.partition.index()] = part.end
			}
		}
	})
	return l.ends.Flush()
}

// complete publishes a durable group and completes its appends. It returns false when
// the log's failure has completed them already.
func (l *Log) complete(g *group) bool {
	l.completing.Lock()
	defer l.completing.Unlock()
	l.flight.Lock()
	ended := l.flight.ended
	if !ended {
		l.flight.groups = l.flight.groups[1:]
	}
	l.flight.Unlock()
	if ended {
		return false
	}
	l.newestMS.Store(g.timeMS)
	for _, part := range g.parts {
		l.tail.publish(part.partition, part.chunks)
	}
	for _, part := range g.parts {
		for _, c := range part.chunks {
			for i, d := range c.done {
				d.Done(c.Base+int64(i), nil)
			}
			c.done = nil
			l.capacity.release(c.cost)
		}
	}
	return true
}

// fail ends the log: see the package comment. It does not wait, since it may
// be called from deep within a store.
func (l *Log) fail(err error) {
	err = fmt.Errorf("the log has failed, start again: %w", err)
	if !l.failure.CompareAndSwap(nil, &err) {
		return
	}
	l.logger.Error("the log has failed; the process must exit and start again", "error", err)
	// Who learns of the failure finds that the log takes no more calls.
	l.stopOnce.Do(func() { close(l.stopped) })
	close(l.failed)
	go l.failUnderWay(err)
}

// failUnderWay completes every append under way with an error: its outcome is unknown.
func (l *Log) failUnderWay(err error) {
	l.completing.Lock()
	defer l.completing.Unlock()
	l.flight.Lock()
	groups := l.flight.groups
	l.flight.groups, l.flight.ended = nil, true
	l.flight.Unlock()
	for _, g := range groups {
		for i := range g.parts { // the committer may be setting the ends of the last group's parts
			for _, c := range g.parts[i].chunks {
				l.completeFailed(c, err)
			}
		}
	}
	l.failQueued(err)
}
