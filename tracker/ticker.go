package tracker

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// ticker appends ticks to the partition, with at most one on its way. Two
// owners that both tick, because one does not know yet that it has lost the
// partition, do no harm: a tick only carries the time.
type ticker struct {
	log       eventlog.Appender
	partition int32
	// pending is set from the append until the tick failed or anything was
	// read.
	pending atomic.Bool
}

var tickValue = (&wire.Location{Kind: wire.KindTick}).Append(nil)

// append appends a tick unless one is on its way.
func (t *ticker) append(ctx context.Context) error {
	if !t.pending.CompareAndSwap(false, true) {
		return nil
	}
	if err := t.log.Append(ctx, topics.Locations, t.partition, eventlog.Record{Value: tickValue}, t); err != nil {
		t.pending.Store(false)
		return fmt.Errorf("append a tick: %w", err)
	}
	return nil
}

// onRecords must be called whenever records were read.
func (t *ticker) onRecords() { t.pending.Store(false) }

// Done implements eventlog.Completion. A tick that failed is no loss: the next
// silence makes another.
func (t *ticker) Done(_ int64, err error) {
	if err != nil {
		t.pending.Store(false)
	}
}
