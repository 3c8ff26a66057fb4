package history

import (
	"context"
	"slices"
	"time"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// Pauses between tries of a write: each is twice the one before it.
	firstRetry, longestRetry = 100 * time.Millisecond, 10 * time.Second
	// giveUpTries are the tries, more than half a minute of them, before a batch that
	// is older than Config.MaxLag is given up: one failure of a sink that has just come
	// back costs nothing.
	giveUpTries = 10
	// maxGaps bounds the gaps that wait to be put on record; the newest two become one
	// beyond it.
	maxGaps = 1000
)

// write plans the batch, writes it and stores that it is done, trying again for as
// long as the sink fails. It fails with errRevoked when the partition is to be
// handed over, with ctx's error, and with the log's.
func (p *partition) write(ctx context.Context) error {
	if p.plannedEnd != 0 {
		p.next = p.plannedEnd // the last offsets of a batch may be those of no record
	} else if p.next == p.first {
		return nil
	}
	if err := p.plan(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := p.put(ctx)
		if err == nil {
			return p.done(ctx)
		}
		p.role.metrics.failures.Inc()
		age := p.role.now().Sub(time.UnixMilli(p.oldestMS))
		if try >= giveUpTries && age > p.role.maxLag {
			p.logger.Error("history gives up a batch that its sink has not taken", "first", p.first, "end", p.next, "age", age, "error", err)
			p.gap(p.first, p.next-1, starlingv1.HistoryGapReason_HISTORY_GAP_REASON_SINK_BEHIND)
			return p.done(ctx)
		}
		pause := retry.Backoff(firstRetry, longestRetry, try)
		p.logger.Warn("history could not write a batch", "first", p.first, "end", p.next, "error", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.claim.Revoked():
			return errRevoked
		case <-time.After(pause):
		}
	}
}

// plan stores the batch's range. A batch without rows needs no plan.
func (p *partition) plan(ctx context.Context) error {
	p.rows = row.Dedup(p.rows)
	if p.plannedEnd != 0 || len(p.rows) == 0 {
		return nil
	}
	p.plannedEnd = p.next
	return p.checkpoint(ctx, p.first)
}

// put has the sink keep the batch, and first the gaps that it does not know of.
func (p *partition) put(ctx context.Context) error {
	if err := p.role.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.role.slots.Release(1)
	for len(p.gaps) > 0 {
		if err := p.role.sink.WriteGap(ctx, p.number, p.gaps[0]); err != nil {
			return err
		}
		p.gaps = p.gaps[1:]
	}
	if err := p.erase(ctx); err != nil {
		return err
	}
	if len(p.rows) == 0 {
		return nil
	}
	written, err := p.role.sink.Write(ctx, &row.Batch{Partition: p.number, Epoch: p.epoch, First: p.first, Last: p.next - 1, Rows: p.rows})
	if err != nil {
		return err
	}
	m := p.role.metrics
	m.batches.Inc()
	m.rows.Add(float64(len(p.rows)))
	m.files.Add(float64(written.Files))
	m.bytes.Add(float64(written.Bytes))
	return nil
}

// noteErasure takes the erasure of the present record, if it is one. A record that was
// read again, or published again, asks for nothing new.
func (p *partition) noteErasure(vehicle string) {
	t := &p.track
	isKnown := func(e *starlingv1.HistoryErasure) bool {
		return e.Epoch == t.Epoch && e.SourceOffset == t.SourceOffset
	}
	if t.ErasedUntilMS != 0 && !slices.ContainsFunc(p.erasures, isKnown) {
		p.erasures = append(p.erasures, &starlingv1.HistoryErasure{VehicleId: vehicle, UntilMs: t.ErasedUntilMS, Epoch: t.Epoch, SourceOffset: t.SourceOffset})
	}
}

// erase has the sink erase what was asked for. A crash before the batch is done has the
// next owner ask for it again.
func (p *partition) erase(ctx context.Context) error {
	for len(p.erasures) > 0 {
		e := p.erasures[0]
		erased, err := p.role.sink.Erase(ctx, row.Erasure{Vehicle: e.VehicleId, UntilMS: e.UntilMs, Partition: p.number, Epoch: e.Epoch, Offset: e.SourceOffset})
		if err != nil {
			return err
		}
		p.role.metrics.erasures.Inc()
		p.logger.Info("history has erased a vehicle's fixes", "source_offset", e.SourceOffset, "rows", erased.Rows, "files", erased.Files)
		p.erasures = p.erasures[1:]
	}
	return nil
}

// done stores that everything before the end of the batch is settled and begins the
// next one.
func (p *partition) done(ctx context.Context) error {
	p.plannedEnd = 0
	if err := p.checkpoint(ctx, p.next); err != nil {
		return err
	}
	p.begin(p.next)
	return nil
}

// skipDeleted goes on at the oldest record that the log still has.
func (p *partition) skipDeleted(ctx context.Context, first int64) error {
	if p.plannedEnd != 0 {
		// What an earlier owner may have written of the batch stands; with fewer
		// records it would be replaced by less.
		p.plannedEnd = 0
		p.next, p.rows = p.first, p.rows[:0]
	} else if err := p.write(ctx); err != nil {
		return err
	}
	p.logger.Error("the log has deleted tracks before history had them", "first", p.next, "last", first-1)
	p.gap(p.next, first-1, starlingv1.HistoryGapReason_HISTORY_GAP_REASON_DELETED)
	p.next = first
	return p.done(ctx)
}

// gap notes that the sink lacks a range.
func (p *partition) gap(first, last int64, reason starlingv1.HistoryGapReason) {
	p.role.metrics.gaps.Inc()
	if n := len(p.gaps); n > 0 && (p.gaps[n-1].Last+1 == first && p.gaps[n-1].Reason == reason || n == maxGaps) {
		p.gaps[n-1].Last = last
		return
	}
	p.gaps = append(p.gaps, &starlingv1.HistoryGap{First: first, Last: last, Reason: reason})
}
