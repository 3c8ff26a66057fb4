package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// fencedPatience is how long an owner whose checkpoint was refused waits to be
// told that it has lost the partition.
const fencedPatience = time.Minute

// replayCut is how many records of a replay are stepped between two cuts.
const replayCut = 5000

// checkpointing is how far the owner has got with its checkpoint. The wall
// clock says when a cut is taken, never what is in it.
type checkpointing struct {
	interval time.Duration
	timer    *time.Timer
	// resume is the resume offset of the newest cut.
	resume int64
	// replayEnd is one past the newest record when the state was loaded, until
	// the state has reached it.
	replayEnd int64
	// pending is the cut that is not stored yet, nil for none.
	pending *pendingCut
	// cutBytes is the size of the cut that was stored last.
	cutBytes int
	// storing is set while a goroutine stores it; then stored (capacity 1)
	// tells the end.
	storing bool
	stored  chan error
}

// pendingCut may be stored once the log has taken so many tracks and letters:
// all that the records before the cut have yielded.
type pendingCut struct {
	cut             Cut
	tracks, letters int64
	taken           time.Time
}

// start spreads the partitions' first cuts over the interval.
func (c *checkpointing) start(interval time.Duration, partition int32) {
	const slots = 16
	c.interval = interval
	c.stored = make(chan error, 1)
	c.timer = time.NewTimer(interval / slots * time.Duration(1+partition%slots))
}

// cut takes a cut unless one is pending or nothing has happened.
func (o *owner) cut() {
	c := &o.checkpoint
	if c.pending != nil || o.state.Offset() < c.resume {
		c.timer.Reset(c.interval)
		return
	}
	// The memory is the cut's alone and goes with it: kept for the next, it would
	// hold the state twice.
	buffer := make([]byte, 0, c.cutBytes+c.cutBytes/8)
	c.pending = &pendingCut{cut: o.state.Cut(buffer), tracks: o.tracks.given, letters: o.letters.given, taken: time.Now()}
	c.resume = c.pending.cut.Resume
}

// cutReplay takes cuts on the way through a replay and one at its end, without
// waiting for the interval. Otherwise a process that dies more often than that
// would replay more and more, and publish all of it again each time.
func (o *owner) cutReplay() {
	c := &o.checkpoint
	next := o.state.Offset() + 1
	switch {
	case c.replayEnd == 0:
	case next >= c.replayEnd:
		c.replayEnd = 0
		o.cut()
	case next-c.resume >= replayCut:
		o.cut()
	}
}

// storeCut starts to store the pending cut once all that it stands for is
// durable in `tracks`. A crash before that leaves the checkpoint before it; a
// crash after it leaves this one: the log stores it as one step.
func (o *owner) storeCut(ctx context.Context) {
	c := &o.checkpoint
	if c.pending == nil || c.storing {
		return
	}
	tracks, letters := o.tracks.reached(c.pending.tracks), o.letters.reached(c.pending.letters)
	if !tracks || !letters {
		return
	}
	c.storing = true
	cut := c.pending.cut
	o.running.Go(func() { c.stored <- o.claim.Checkpoint(ctx, cut.Changes, cut.Resume) })
}

// cutStored ends a checkpoint.
func (o *owner) cutStored(err error) error {
	c := &o.checkpoint
	done := c.pending
	c.pending, c.storing = nil, false
	c.timer.Reset(c.interval)
	if err != nil {
		return &logFailure{fmt.Errorf("checkpoint at offset %d: %w", done.cut.Resume, err)}
	}
	o.metrics.checkpoints.Inc()
	o.metrics.checkpointBytes.Add(float64(len(done.cut.Buffer)))
	o.metrics.checkpointSeconds.Observe(time.Since(done.taken).Seconds())
	c.cutBytes = len(done.cut.Buffer)
	return nil
}

// fenced looks at a failed checkpoint. One that was refused because a later
// claim owns the partition is not a fault of the log, and the other partitions
// of this process must not suffer: the owner does nothing more and waits to be
// told that it has lost the partition.
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
// last checkpoint and nothing else, so it is told and not returned.
func (o *owner) handOver(ctx context.Context) {
	if err := o.flush(ctx); err != nil {
		o.logger.Warn("the partition is handed over without a last checkpoint", "error", err)
	} else {
		o.logger.Info("tracker hands a partition over", "resume", o.checkpoint.resume)
	}
}

// flush waits for all appends and stores what the state is then.
func (o *owner) flush(ctx context.Context) error {
	if err := o.tracks.wait(ctx, o.tracks.given); err != nil {
		return err
	}
	if err := o.letters.wait(ctx, o.letters.given); err != nil {
		return err
	}
	for last := false; ; last = true {
		o.storeCut(ctx)
		if o.checkpoint.storing {
			if err := o.cutStored(<-o.checkpoint.stored); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		o.cut()
	}
}
