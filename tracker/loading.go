package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// errReplaced is returned when a later claim owns the partition.
var errReplaced = errors.New("a later claim owns the partition")

// load restores the partition as of its last checkpoint. From here on every
// earlier claim is fenced: what its holder still publishes is what this one
// publishes again, and its checkpoints are refused. It fails with errReplaced
// when a later claim has fenced this one.
func (o *owner) load(ctx context.Context) error {
	started := time.Now()
	configured := o.cfg.StepSettings(int(o.log.Partitions()))
	loader, err := o.carried.NewLoader(configured, o.log.Epoch())
	if err != nil {
		return err
	}
	resume, err := o.claim.Load(ctx, loader.Add)
	if err != nil {
		return fmt.Errorf("load the state: %w", err)
	}
	bounds, err := o.log.Bounds(ctx, topics.Locations)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.Locations, err)
	}
	at := bounds[o.claim.Partition()]
	reach := at
	if streamMS, outdated := loader.Outdated(); outdated {
		// What was appended since the epoch was raised is read from its first record.
		if reach.End, err = eventlog.Resume(ctx, o.log, topics.Locations, o.claim.Partition(), at, resume, streamMS); err != nil {
			return err
		}
	}
	if o.state, err = loader.Partition(resume, step.Bounds(reach)); err != nil {
		return fmt.Errorf("load the state: %w", err)
	}
	if loader.Begins() {
		if err := o.begin(ctx, resume, at); err != nil {
			return err
		}
	}
	if o.state.Settings() != configured {
		o.logger.Warn("the partition keeps the step settings of its state; a version switch in the log would change them",
			"in_force", string(o.state.Settings().Encode()), "configured", string(configured.Encode()))
	}
	o.end = at.End
	o.checkpoint.resume = o.state.Offset() + 1
	if o.checkpoint.resume < at.End {
		o.checkpoint.replayEnd = at.End
	}
	o.gauges.set(o.state, o.end)
	o.metrics.loadSeconds.Observe(time.Since(started).Seconds())
	o.logger.Info("tracker serves a partition", "vehicles", o.state.Vehicles(), "resume", o.checkpoint.resume, "end", o.end, "loaded_in", time.Since(started))
	return nil
}

// begin stores the first checkpoint of a partition, or the first of an epoch,
// before anything is published, so that no two trackers that are configured
// differently can begin the same partition. A crash before it leaves nothing; a
// crash after it leaves a partition whose settings are the log's.
func (o *owner) begin(ctx context.Context, resume int64, at eventlog.Bounds) error {
	if resume < 0 {
		if err := o.checkNothingLost(ctx, at); err != nil {
			return err
		}
	} else {
		o.logger.Warn("the epoch was raised: the partition's vehicles are unknown until they report", "epoch", o.log.Epoch(), "resume", o.state.Offset()+1)
	}
	snapshot := o.state.Snapshot(nil, nil)
	if err := o.claim.Checkpoint(ctx, changes(snapshot), snapshot.Resume); err != nil {
		if err := o.fenced(ctx, &logFailure{fmt.Errorf("first checkpoint at offset %d: %w", snapshot.Resume, err)}); err != nil {
			return err
		}
		return errReplaced
	}
	return nil
}

// checkNothingLost refuses a partition that has no state although it must have
// had one, or whose first records are gone unread: what happened to its
// vehicles can't be known, and that needs a new epoch.
func (o *owner) checkNothingLost(ctx context.Context, at eventlog.Bounds) error {
	const remedy = "stop all roles and raise the epoch (starling topics raise-epoch) to go on with vehicles unknown until they report"
	bounds, err := o.log.Bounds(ctx, topics.Tracks)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.Tracks, err)
	}
	epoch := o.log.Epoch()
	tracks := bounds[o.claim.Partition()]
	if tracks.First == tracks.End {
		if at.First > 0 && epoch <= 1 {
			return fmt.Errorf("the records before offset %d were deleted before a tracker had read them: %s", at.First, remedy)
		}
		return nil
	}
	reader, err := o.log.NewReader(ctx, topics.Tracks, map[int32]int64{o.claim.Partition(): tracks.End - 1})
	if err != nil {
		return fmt.Errorf("read %s: %w", topics.Tracks, err)
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", topics.Tracks, err)
		}
		for i := range batch.Records {
			var t wire.Track
			if err := t.Unmarshal(batch.Records[i].Value); err != nil {
				return fmt.Errorf("decode %s at offset %d: %w", topics.Tracks, batch.Records[i].Offset, err)
			}
			if t.Epoch >= epoch {
				return fmt.Errorf("the state is lost: %s has records of epoch %d, and there is no checkpoint: %s", topics.Tracks, t.Epoch, remedy)
			}
		}
		if len(batch.Records) > 0 {
			return nil
		}
	}
}
