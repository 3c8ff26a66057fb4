package tracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// owner serves one claimed partition. Its run goroutine owns the partition's
// state; a second goroutine reads ahead and a third stores checkpoints.
type owner struct {
	cfg     Config
	log     Log
	carried step.Versions
	claim   eventlog.Claim
	metrics *metrics
	gauges  *partitionMetrics
	logger  *slog.Logger
	loaded  *atomic.Int32 // counts the partitions that have been loaded

	state       *step.Partition
	tracks      *publisher
	deadLetters *appends
	ticks       *ticker
	tally       tally
	nextIDs     [][]byte // of vehicles whose records come next
	// jumpPending is what the last record's result was.
	jumpPending bool
	// end is one past the newest durable record that is known of.
	end int64

	checkpoint checkpointing
	// running are the two other goroutines.
	running sync.WaitGroup
}

// run returns nil after an orderly hand-over, and the reason why the partition
// was given up otherwise.
//
// A crash between two checkpoints leaves tracks published that the state does
// not know of. The next owner steps the same records from the last checkpoint
// and publishes the same tracks again; readers drop them by source offset.
func (o *owner) run(ctx context.Context) error {
	if err := o.load(ctx); err != nil {
		if errors.Is(err, errReplaced) {
			return nil
		}
		return err
	}
	o.loaded.Add(1)
	defer o.loaded.Add(-1)
	readCtx, stopReading := context.WithCancel(ctx)
	defer o.running.Wait()
	defer stopReading()
	batches := make(chan read)
	o.running.Go(func() { o.read(readCtx, batches) })

	o.checkpoint.start(o.cfg.CheckpointInterval, o.claim.Partition())
	defer o.checkpoint.timer.Stop()
	silence := time.NewTimer(o.cfg.TickInterval)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.claim.Revoked():
			stopReading()
			o.handOver(ctx)
			return nil
		case r := <-batches:
			if r.err != nil {
				return fmt.Errorf("read %s: %w", topics.Locations, r.err)
			}
			if err := o.stepBatch(ctx, r.batch); err != nil {
				return o.giveBack(ctx, err)
			}
			o.snapshotReplay()
			o.ticks.onRecords()
			if o.caughtUp() && o.state.TimersPending() {
				o.metrics.timerTicks.Inc()
				o.tick(ctx)
			}
			silence.Reset(o.cfg.TickInterval)
		case <-silence.C:
			if o.caughtUp() {
				o.tick(ctx)
			}
			silence.Reset(o.cfg.TickInterval)
		case <-o.tracks.changed:
		case <-o.deadLetters.changed:
		case <-o.checkpoint.timer.C:
			o.snapshot()
		case err := <-o.checkpoint.stored:
			if err := o.snapshotStored(err); err != nil {
				return o.fenced(ctx, err)
			}
		}
		if err := errors.Join(o.tracks.failed(), o.deadLetters.failed()); err != nil {
			return err
		}
		o.storeSnapshot(ctx)
	}
}

// read is what the reading goroutine found.
type read struct {
	batch eventlog.Batch
	err   error
}

// read sends batches to the run goroutine until ctx is done or reading fails.
func (o *owner) read(ctx context.Context, batches chan<- read) {
	send := func(r read) bool {
		select {
		case batches <- r:
			return r.err == nil
		case <-ctx.Done():
			return false
		}
	}
	reader, err := o.log.NewReader(ctx, topics.Locations, map[int32]int64{o.claim.Partition(): o.checkpoint.resume})
	if err != nil {
		send(read{err: err})
		return
	}
	defer func() {
		if err := reader.Close(); err != nil {
			o.logger.Warn("close reader", "error", err)
		}
	}()
	for {
		batch, err := reader.Poll(ctx)
		if !send(read{batch: batch, err: err}) {
			return
		}
	}
}

// stepBatch steps the records and appends their tracks to the log.
func (o *owner) stepBatch(ctx context.Context, batch eventlog.Batch) error {
	defer o.tally.flush(o.metrics)
	o.end = batch.End
	for i := range batch.Records {
		if i%step.WarmMax == 0 {
			o.warm(batch.Records[i:])
		}
		rec := &batch.Records[i]
		result, err := o.state.Step(step.Record(*rec))
		if err != nil {
			return err
		}
		o.tally.add(&result)
		o.noticeJump(&result)
		if result.Kind == wire.KindVersionSwitch && result.Poison == nil {
			o.logger.Info("a version switch is in force", "offset", rec.Offset, "step_version", o.state.Version(), "settings", string(o.state.Settings().Encode()))
		}
		if result.Poison != nil {
			if err := o.publishDeadLetter(ctx, rec, result.Poison); err != nil {
				return err
			}
		}
		if err := o.tracks.publish(ctx, rec.Key, result.Track); err != nil {
			return err
		}
	}
	o.gauges.set(o.state, o.end)
	return nil
}

// warm prepares the step for the records that come next: a record's key is its
// vehicle.
func (o *owner) warm(next []eventlog.Stored) {
	o.nextIDs = o.nextIDs[:0]
	for i := range min(len(next), step.WarmMax) {
		o.nextIDs = append(o.nextIDs, next[i].Key)
	}
	o.state.Warm(o.nextIDs)
	clear(o.nextIDs) // keeps no record alive
}

// noticeJump logs a jump of the log's stamps, once when it begins and once when
// it is believed.
func (o *owner) noticeJump(r *step.Result) {
	if r.JumpPending && !o.jumpPending {
		stampMS := r.Track.AppendTimeMS
		o.logger.Warn("the log's stamps have jumped: timers stand still until stamps have stayed there",
			"offset", r.Track.SourceOffset, "by", time.Duration(stampMS-r.Track.ClockMS)*time.Millisecond, "believed_after", time.Duration(o.state.Settings().ClockSettleMS)*time.Millisecond)
	}
	if r.BelievedMS != 0 {
		o.logger.Warn("stream time follows a jump of the log's stamps", "offset", r.Track.SourceOffset, "by", time.Duration(r.BelievedMS)*time.Millisecond)
	}
	o.jumpPending = r.JumpPending
}

// giveBack ends the partition with err. At a switch to a version that this
// binary can't serve, the state before the switch is left in good order.
func (o *owner) giveBack(ctx context.Context, err error) error {
	var unknown *step.UnknownVersionError
	if errors.As(err, &unknown) {
		o.handOver(ctx)
	}
	return err
}

// publishDeadLetter writes a record that could not be processed to the dead letters. A
// checkpoint behind the record waits until the dead letter is durable.
func (o *owner) publishDeadLetter(ctx context.Context, rec *eventlog.Stored, poison error) error {
	o.logger.Error("a record could not be processed and goes to the dead letters", "offset", rec.Offset, "error", poison)
	deadLetter, err := DeadLetter{
		Topic: topics.Locations, Partition: o.claim.Partition(), Offset: rec.Offset, AppendTimeMS: rec.AppendTimeMS,
		Key: rec.Key, Value: rec.Value, Error: poison.Error(),
	}.Record()
	if err != nil {
		return err
	}
	return o.deadLetters.append(ctx, deadLetter)
}

// caughtUp returns whether everything durable that is known of has been stepped.
func (o *owner) caughtUp() bool { return max(o.state.Offset()+1, o.checkpoint.resume) >= o.end }

func (o *owner) tick(ctx context.Context) {
	if err := o.ticks.append(ctx); err != nil && ctx.Err() == nil {
		o.logger.Warn("a tick was not appended", "error", err)
	}
}
