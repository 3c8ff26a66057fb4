package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/topics"
)

// maxWriters bounds the batches that a sink encodes at the same time, and so the
// memory and the processors that this takes.
const maxWriters = 2

// limits are what a writer is set to.
type limits struct {
	name, group      string // of the sink and of the group of its writers
	maxRows          int
	interval, maxLag time.Duration
	rollup           time.Duration // between passes of roller.Rollup; 0 for none
	joinAfter        time.Duration // how old an hour is whose files are joined; 0 for never
}

// writer carries `tracks` into one sink: a consumer group of its own, with batches,
// checkpoints and gaps of its own under the sink's name.
type writer struct {
	limits
	log     Log
	sink    Sink
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics
	slots   *semaphore.Weighted

	assigned eventlog.Assignment // to the present Own call
	serving  atomic.Int32        // partitions that have been loaded

	mu     sync.Mutex
	oldest map[int32]int64 // append time in ms of the oldest record that waits, by partition
	owned  map[int32]bool  // partitions that have been loaded
}

func newWriter(l limits, sink Sink, deps *Deps) (*writer, error) {
	w := &writer{
		limits: l, log: deps.Log, sink: sink, logger: deps.Logger.With("sink", l.name), now: deps.Now,
		slots: semaphore.NewWeighted(maxWriters), oldest: map[int32]int64{}, owned: map[int32]bool{},
	}
	var err error
	if w.metrics, err = newMetrics(deps.Registerer, l.name, w.lagSeconds); err != nil {
		return nil, fmt.Errorf("history metrics: %w", err)
	}
	return w, nil
}

// ready returns whether the partitions that fell to this process are served.
func (w *writer) ready() bool {
	share, joined := w.assigned.Partitions()
	return joined && int(w.serving.Load()) >= share
}

// retryInterval is the pause before partitions are taken up again.
const retryInterval = time.Second

func (w *writer) run(ctx context.Context) error {
	var rolling sync.WaitGroup
	defer rolling.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if r, ok := w.sink.(roller); ok && w.rollup > 0 {
		rolling.Go(func() { w.roll(ctx, r) })
	}
	if j, ok := w.sink.(joiner); ok && w.joinAfter > 0 {
		rolling.Go(func() { w.join(ctx, j) })
	}
	spec := eventlog.OwnSpec{Group: w.group, Source: topics.Tracks, State: topics.HistoryState, Assigned: &w.assigned}
	for {
		err := w.log.Own(ctx, spec, w.serve)
		w.assigned.Reset()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			return errors.New("history: the log ended the ownership of partitions")
		case errors.Is(err, eventlog.ErrClosed):
			return fmt.Errorf("history: %w", err)
		}
		w.logger.Warn("history gave up its partitions because the log failed", "error", err, "again_in", retryInterval)
		if retry.Sleep(ctx, retryInterval) != nil {
			return nil
		}
	}
}

// serve is the life of one partition in this process.
func (w *writer) serve(ctx context.Context, claim eventlog.Claim) error {
	p := &partition{role: w, claim: claim, number: claim.Partition(), logger: w.logger.With("partition", claim.Partition())}
	defer w.waits(p.number, 0)
	err := p.run(ctx)
	if ctx.Err() != nil || errors.Is(err, eventlog.ErrFenced) {
		return nil // the claim is lost: its next holder is authoritative
	}
	if err != nil {
		return fmt.Errorf("partition %d: %w", p.number, err)
	}
	return nil
}

// holds notes that a partition is served, or no longer.
func (w *writer) holds(partition int32, held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if held {
		w.owned[partition] = true
		w.serving.Add(1)
		w.metrics.owned.Inc()
		return
	}
	delete(w.owned, partition)
	w.serving.Add(-1)
	w.metrics.owned.Dec()
}

// waits notes the append time of the oldest record of a partition that has been
// read and not written; zero when there is none.
func (w *writer) waits(partition int32, appendTimeMS int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if appendTimeMS == 0 {
		delete(w.oldest, partition)
		return
	}
	w.oldest[partition] = appendTimeMS
}

func (w *writer) lagSeconds() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	nowMS, lagMS := w.now().UnixMilli(), int64(0)
	for _, atMS := range w.oldest {
		lagMS = max(lagMS, nowMS-atMS)
	}
	return float64(lagMS) / 1000
}
