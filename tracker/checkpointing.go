package tracker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/tracker/step"
)

// fencedPatience is how long an owner whose checkpoint was refused waits until
// its claim is revoked.
const fencedPatience = time.Minute

// replaySnapshot is how many records of a replay are stepped between two
// snapshots.
const replaySnapshot = 5000

// checkpointing is how far the owner has got with its checkpoint. The wall
// clock decides when a snapshot is taken, never what is in it.
type checkpointing struct {
	interval time.Duration
	timer    *time.Timer
	// resume is the resume offset of the newest snapshot.
	resume int64
	// replayEnd is one past the newest record when the state was loaded, until
	// the state has reached it.
	replayEnd int64
	// pending is the snapshot that is not stored yet, nil for none.
	pending *pendingSnapshot
	// snapshotBytes is the size of the snapshot that was stored last.
	snapshotBytes int
	// storing is set while a goroutine stores it; then stored (capacity 1)
	// receives the result.
	storing bool
	stored  chan error
}

// pendingSnapshot may be stored once the log has acknowledged so many tracks and
// dead letters: all that the records before the snapshot have yielded.
type pendingSnapshot struct {
	snapshot            step.Snapshot
	tracks, deadLetters int64
	taken               time.Time
}

// changes are the records of a snapshot as the log stores them.
func changes(s step.Snapshot) []eventlog.Record {
	records := make([]eventlog.Record, len(s.Changes))
	for i, change := range s.Changes {
		records[i] = eventlog.Record(change)
	}
	return records
}

// start spreads the partitions' first snapshots over the interval.
func (c *checkpointing) start(interval time.Duration, partition int32) {
	const slots = 16
	c.interval = interval
	c.stored = make(chan error, 1)
	c.timer = time.NewTimer(interval / slots * time.Duration(1+partition%slots))
}

// snapshot takes a snapshot unless one is pending or nothing has happened.
func (o *owner) snapshot() {
	c := &o.checkpoint
	if c.pending != nil || o.state.Offset() < c.resume {
		c.timer.Reset(c.interval)
		return
	}
	// The memory is the snapshot's alone and goes with it: kept for the next, it
	// would hold the state twice. While many vehicles are encoded, a search may
	// wait for the processor: it is yielded now and then.
	buffer := make([]byte, 0, c.snapshotBytes+c.snapshotBytes/8)
	c.pending = &pendingSnapshot{
		snapshot: o.state.Snapshot(buffer, runtime.Gosched),
		tracks:   o.tracks.appended, deadLetters: o.deadLetters.appended, taken: time.Now(),
	}
	c.resume = c.pending.snapshot.Resume
}

// snapshotReplay takes snapshots on the way through a replay and one at its end,
// without waiting for the interval. Otherwise a process that dies more often than that
// would replay more and more, and publish all of it again each time.
func (o *owner) snapshotReplay() {
	c := &o.checkpoint
	next := o.state.Offset() + 1
	switch {
	case c.replayEnd == 0:
	case next >= c.replayEnd:
		c.replayEnd = 0
		o.snapshot()
	case next-c.resume >= replaySnapshot:
		o.snapshot()
	}
}

// storeSnapshot starts to store the pending one once all that it stands for is
// durable in `tracks`. A crash before that leaves the checkpoint before it; a
// crash after it leaves this one: the log stores it as one step.
func (o *owner) storeSnapshot(ctx context.Context) {
	c := &o.checkpoint
	if c.pending == nil || c.storing {
		return
	}
	tracks, deadLetters := o.tracks.reached(c.pending.tracks), o.deadLetters.reached(c.pending.deadLetters)
	if !tracks || !deadLetters {
		return
	}
	c.storing = true
	snapshot := c.pending.snapshot
	o.running.Go(func() { c.stored <- o.claim.Checkpoint(ctx, changes(snapshot), snapshot.Resume) })
}

// snapshotStored ends a checkpoint.
func (o *owner) snapshotStored(err error) error {
	c := &o.checkpoint
	done := c.pending
	c.pending, c.storing = nil, false
	c.timer.Reset(c.interval)
	if err != nil {
		return &logFailure{fmt.Errorf("checkpoint at offset %d: %w", done.snapshot.Resume, err)}
	}
	o.metrics.checkpoints.Inc()
	o.metrics.checkpointBytes.Add(float64(len(done.snapshot.Buffer)))
	o.metrics.checkpointSeconds.Observe(time.Since(done.taken).Seconds())
	c.snapshotBytes = len(done.snapshot.Buffer)
	return nil
}

// fenced looks at a failed checkpoint. One that was refused because a later
// claim owns the partition is not a fault of the log, and the other partitions
// of this process must not suffer: the owner does nothing more and waits
// until its claim is revoked.
func (o *owner) fenced(ctx context.Context, err error) error {
	if !errors.Is(err, eventlog.ErrFenced) {
		return err
	}
	o.logger.Warn("a later claim owns the partition, this one ends", "error", err)
	patience := time.NewTimer(fencedPatience)
	defer patience.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-o.claim.Revoked():
		return nil
	case <-patience.C:
		return err
	}
}

// handOver gives the partition up in good order: what is on its way is
// published, then everything is checkpointed, then the claim is released by
// returning. Whatever fails on the way costs the next owner a replay from the
// last checkpoint and nothing else, so it is logged and not returned.
func (o *owner) handOver(ctx context.Context) {
	if err := o.flush(ctx); err != nil {
		o.logger.Warn("the partition is handed over without a last checkpoint", "error", err)
	} else {
		o.logger.Info("tracker hands a partition over", "resume", o.checkpoint.resume)
	}
}

// flush waits for all appends and stores what the state is then.
func (o *owner) flush(ctx context.Context) error {
	if err := o.tracks.wait(ctx, o.tracks.appended); err != nil {
		return err
	}
	if err := o.deadLetters.wait(ctx, o.deadLetters.appended); err != nil {
		return err
	}
	for last := false; ; last = true {
		o.storeSnapshot(ctx)
		if o.checkpoint.storing {
			if err := o.snapshotStored(<-o.checkpoint.stored); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		o.snapshot()
	}
}
