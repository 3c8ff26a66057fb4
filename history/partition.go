package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// partition writes one claimed partition of `tracks`. Its run goroutine does
// everything but reading.
//
// A batch is a range of offsets. It is stored as planned before anything of it is
// written, and only what is written is stored as done:
//
//   - A crash before the plan is stored leaves nothing: the records are read again,
//     and may fall into other batches.
//   - A crash behind it leaves any part of the batch's files. Whoever owns the
//     partition next reads the same records, makes the same rows and writes the same
//     files, before it begins a batch of its own.
type partition struct {
	role   *writer
	claim  eventlog.Claim
	number int32
	logger *slog.Logger

	// plannedEnd is the offset behind the batch that is planned, 0 for none.
	plannedEnd int64
	gaps       []*starlingv1.HistoryGap
	// erasures are those that the sink has not been given. They come before the rows of
	// the batch.
	erasures []*starlingv1.HistoryErasure

	// The batch being gathered: records [first, next), all of one epoch.
	first, next int64
	epoch       int64
	rows        []row.Fix
	oldestMS    int64 // append time of its first record
	flushAt     *time.Timer

	track   wire.Track
	reading sync.WaitGroup
}

// read is what the reading goroutine found.
type read struct {
	batch eventlog.Batch
	err   error
}

func (p *partition) run(ctx context.Context) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	p.role.holds(p.number, true)
	defer p.role.holds(p.number, false)
	p.flushAt = time.NewTimer(p.role.interval)
	defer p.flushAt.Stop()
	for {
		again, err := p.follow(ctx)
		if err != nil || !again {
			return err
		}
	}
}

// load fences earlier claims and sets the partition to where the last one was.
func (p *partition) load(ctx context.Context) error {
	var state starlingv1.HistoryPartitionState
	resume, err := p.claim.Load(ctx, func(key, value []byte) error {
		if string(key) != p.role.name {
			return nil
		}
		return proto.Unmarshal(value, &state)
	})
	if err != nil {
		return fmt.Errorf("load the state of history: %w", err)
	}
	all, err := p.role.log.Bounds(ctx, topics.Tracks)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.Tracks, err)
	}
	bounds := all[p.number]
	p.plannedEnd, p.gaps, p.erasures = state.PlannedEnd, state.Gaps, state.Erasures
	switch {
	case resume < 0: // all that the log still has
		resume = bounds.First
	case max(resume, p.plannedEnd) > bounds.End:
		p.logger.Warn("the log was shortened: history goes on at its end", "resume", resume, "end", bounds.End)
		resume, p.plannedEnd = min(resume, bounds.End), 0
	}
	p.begin(resume)
	return nil
}

// begin starts a batch at an offset.
func (p *partition) begin(offset int64) {
	p.first, p.next, p.rows, p.oldestMS = offset, offset, p.rows[:0], 0
	p.role.waits(p.number, 0)
}

// follow reads from where the batch has come to until the partition is handed over
// (false) or the log has deleted what comes next (true: it goes on behind that).
func (p *partition) follow(ctx context.Context) (again bool, err error) {
	readCtx, stop := context.WithCancel(ctx)
	defer p.reading.Wait()
	defer stop()
	reads := make(chan read)
	p.reading.Go(func() { p.read(readCtx, reads, p.next) })
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-p.claim.Revoked():
			return false, p.handOver(ctx)
		case <-p.flushAt.C:
			if p.plannedEnd == 0 {
				if err := p.write(ctx); err != nil {
					return false, p.unlessRevoked(err)
				}
			}
			p.flushAt.Reset(p.role.interval)
		case r := <-reads:
			var gone *eventlog.TruncatedError
			if errors.As(r.err, &gone) {
				return true, p.unlessRevoked(p.skipDeleted(ctx, gone.First))
			}
			if r.err != nil {
				return false, fmt.Errorf("read %s: %w", topics.Tracks, r.err)
			}
			if err := p.gather(ctx, &r.batch); err != nil {
				return false, p.unlessRevoked(err)
			}
		}
	}
}

// errRevoked ends a write that waits for a failing sink.
var errRevoked = errors.New("the partition is handed over")

func (p *partition) unlessRevoked(err error) error {
	if errors.Is(err, errRevoked) {
		return nil
	}
	return err
}

func (p *partition) read(ctx context.Context, reads chan<- read, from int64) {
	send := func(r read) bool {
		select {
		case reads <- r:
			return r.err == nil
		case <-ctx.Done():
			return false
		}
	}
	reader, err := p.role.log.NewReader(ctx, topics.Tracks, map[int32]int64{p.number: from})
	if err != nil {
		send(read{err: err})
		return
	}
	defer func() { _ = reader.Close() }()
	for {
		b, err := reader.Poll(ctx)
		if !send(read{b, err}) {
			return
		}
	}
}

// gather adds records to the batch and writes it when it is whole.
func (p *partition) gather(ctx context.Context, b *eventlog.Batch) error {
	for i := range b.Records {
		rec := &b.Records[i]
		if p.plannedEnd != 0 && rec.Offset >= p.plannedEnd { // there are no records up to its end
			if err := p.write(ctx); err != nil {
				return err
			}
		}
		known := p.track.Unmarshal(rec.Value)
		if known != nil {
			p.role.metrics.undecodable.Inc()
			p.logger.Error("a record of tracks can't be decoded: history has no rows of it", "offset", rec.Offset, "error", known)
			p.track.Epoch = p.epoch
		}
		if p.next > p.first && p.track.Epoch != p.epoch {
			if err := p.write(ctx); err != nil {
				return err
			}
		}
		if p.oldestMS == 0 {
			p.oldestMS = rec.AppendTimeMS
			p.role.waits(p.number, p.oldestMS)
		}
		if known == nil {
			p.epoch = p.track.Epoch
			p.rows = row.Append(p.rows, p.number, string(rec.Key), &p.track)
			p.noteErasure(string(rec.Key))
		}
		p.next = rec.Offset + 1
		if p.next == p.plannedEnd || p.plannedEnd == 0 && len(p.rows) >= p.role.maxRows {
			if err := p.write(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// handOver writes what was gathered, unless the sink fails: the next owner does it.
func (p *partition) handOver(ctx context.Context) error {
	if p.plannedEnd != 0 || p.next == p.first {
		return nil
	}
	if err := p.plan(ctx); err != nil {
		return err
	}
	if err := p.put(ctx); err != nil {
		p.logger.Warn("history could not write its last batch before the hand-over; the next owner does", "error", err)
		return nil
	}
	return p.done(ctx)
}

// checkpoint stores the partition's state with a resume offset.
func (p *partition) checkpoint(ctx context.Context, resume int64) error {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&starlingv1.HistoryPartitionState{PlannedEnd: p.plannedEnd, Gaps: p.gaps, Erasures: p.erasures})
	if err != nil {
		return err
	}
	if err := p.claim.Checkpoint(ctx, []eventlog.Record{{Key: []byte(p.role.name), Value: value}}, resume); err != nil {
		return fmt.Errorf("checkpoint at %d: %w", resume, err)
	}
	return nil
}
