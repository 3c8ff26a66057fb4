package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Log is the part of eventlog.Log that the role needs.
type Log interface {
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
	Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error
}

// Sink keeps rows. lake.Sink is one.
type Sink interface {
	// Write keeps a batch, durably and whole. The same batch may come again.
	Write(ctx context.Context, b *row.Batch) (row.Written, error)
	// WriteGap puts a range on record that the sink will not be given.
	WriteGap(ctx context.Context, partition int32, gap *starlingv1.HistoryGap) error
}

// Deps are what the role works with.
type Deps struct {
	Log        Log
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Sink is what is written to; nil means the lake in Config.LakeDir.
	Sink Sink
	// Now is the wall clock by which a failing sink is given up; nil means time.Now.
	Now func() time.Time
}

// maxWriters bounds the batches that are encoded at the same time, and so the
// memory and the processors that this takes.
const maxWriters = 2

// History is the role. Call Run once.
type History struct {
	cfg     Config
	log     Log
	sink    Sink
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics
	writers *semaphore.Weighted

	assigned eventlog.Assignment // to the present Own call
	serving  atomic.Int32        // partitions that have been loaded

	mu     sync.Mutex
	oldest map[int32]int64 // append time in ms of the oldest record that waits, by partition
}

// New returns a role that does nothing yet. It fails when cfg breaks a rule, the
// lake can't be made or the registerer has another one's metrics.
func New(cfg Config, deps Deps) (*History, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("history configuration: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Sink == nil {
		s, err := lake.NewSink(cfg.LakeDir)
		if err != nil {
			return nil, err
		}
		deps.Sink = s
	}
	h := &History{cfg: cfg, log: deps.Log, sink: deps.Sink, logger: deps.Logger, now: deps.Now, writers: semaphore.NewWeighted(maxWriters), oldest: map[int32]int64{}}
	var err error
	if h.metrics, err = newMetrics(deps.Registerer, h.lagSeconds); err != nil {
		return nil, fmt.Errorf("history metrics: %w", err)
	}
	return h, nil
}

// Ready returns whether the partitions that fell to this process are served.
func (h *History) Ready() bool {
	share, joined := h.assigned.Partitions()
	return joined && int(h.serving.Load()) >= share
}

// retryInterval is the pause before partitions are taken up again.
const retryInterval = time.Second

// Run serves partitions until ctx is done; then it writes what it has gathered and
// returns nil. When the log fails, all partitions are given up and taken up again
// after a pause.
func (h *History) Run(ctx context.Context) error {
	spec := eventlog.OwnSpec{Group: h.cfg.LakeGroup, Source: topics.Tracks, State: topics.HistoryState, Assigned: &h.assigned}
	for {
		err := h.log.Own(ctx, spec, h.serve)
		h.assigned.Reset()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			return errors.New("history: the log ended the ownership of partitions")
		case errors.Is(err, eventlog.ErrClosed):
			return fmt.Errorf("history: %w", err)
		}
		h.logger.Warn("history gave up its partitions because the log failed", "error", err, "again_in", retryInterval)
		if retry.Sleep(ctx, retryInterval) != nil {
			return nil
		}
	}
}

// serve is the life of one partition in this process.
func (h *History) serve(ctx context.Context, claim eventlog.Claim) error {
	p := &partition{role: h, claim: claim, number: claim.Partition(), logger: h.logger.With("partition", claim.Partition())}
	defer h.waits(p.number, 0)
	err := p.run(ctx)
	if ctx.Err() != nil || errors.Is(err, eventlog.ErrFenced) {
		return nil // the claim is lost: its next holder is authoritative
	}
	if err != nil {
		return fmt.Errorf("partition %d: %w", p.number, err)
	}
	return nil
}

// waits notes the append time of the oldest record of a partition that has been
// read and not written; zero when there is none.
func (h *History) waits(partition int32, appendTimeMS int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if appendTimeMS == 0 {
		delete(h.oldest, partition)
		return
	}
	h.oldest[partition] = appendTimeMS
}

func (h *History) lagSeconds() float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	nowMS, lagMS := h.now().UnixMilli(), int64(0)
	for _, atMS := range h.oldest {
		lagMS = max(lagMS, nowMS-atMS)
	}
	return float64(lagMS) / 1000
}
