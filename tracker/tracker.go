package tracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker/step"
)

// Log is the part of eventlog.Log that the tracker needs.
type Log interface {
	eventlog.Appender
	Partitions() int32
	Epoch() int64
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
	Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error
}

// Tracker owns partitions of `locations`, as many as fall to this process.
type Tracker struct {
	cfg     Config
	log     Log
	carried step.Versions
	metrics *metrics
	logger  *slog.Logger

	assigned eventlog.Assignment // to the present Own call
	loaded   atomic.Int32        // partitions that are served and have been loaded
	latch    sync.Mutex
	ready    bool // under latch
}

// Ready reports whether the tracker has joined its group and has loaded every
// partition that fell to it, none included. Once it has, it stays ready while
// partitions come and go, until it gives all of them up or Run ends.
func (t *Tracker) Ready() bool {
	t.latch.Lock()
	defer t.latch.Unlock()
	if share, joined := t.assigned.Partitions(); joined && int(t.loaded.Load()) >= share {
		t.ready = true
	}
	return t.ready
}

// notReady takes back what Ready has found.
func (t *Tracker) notReady() {
	t.latch.Lock()
	defer t.latch.Unlock()
	t.assigned.Reset()
	t.ready = false
}

// Deps are what a tracker works with.
type Deps struct {
	Log        Log
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// New returns a tracker that does nothing yet. It fails when cfg breaks a rule
// or the registerer has another tracker's metrics.
func New(cfg Config, deps Deps) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("tracker configuration: %w", err)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("tracker metrics: %w", err)
	}
	return &Tracker{cfg: cfg, log: deps.Log, carried: step.Carried(), metrics: m, logger: deps.Logger}, nil
}

// Run serves partitions until ctx is done; then it publishes what is on its
// way, takes a last checkpoint of each partition, gives them up and returns nil
// after all its goroutines have ended. When the log fails to store a record, all
// partitions are given up and taken up again after a pause. Any other failure
// (a log that was truncated, a version that this binary does not know) ends Run
// with an error.
func (t *Tracker) Run(ctx context.Context) error {
	spec := eventlog.OwnSpec{Group: t.cfg.Group, Source: topics.Locations, State: topics.TrackerState, Assigned: &t.assigned}
	for {
		err := t.log.Own(ctx, spec, t.serve)
		t.notReady()
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())):
			return nil
		case err == nil:
			return errors.New("tracker: the log ended the ownership of partitions")
		case !retryable(err):
			return fmt.Errorf("tracker: %w", err)
		}
		t.metrics.retries.Inc()
		t.logger.Warn("tracker gave up its partitions because the log failed", "error", err, "again_in", t.cfg.RetryInterval)
		if retry.Sleep(ctx, t.cfg.RetryInterval) != nil {
			return nil
		}
	}
}

// serve is the life of one partition in this process.
func (t *Tracker) serve(ctx context.Context, claim eventlog.Claim) error {
	gauges := t.metrics.own(claim.Partition())
	defer gauges.release()
	o := &owner{
		cfg:         t.cfg,
		log:         t.log,
		carried:     t.carried,
		claim:       claim,
		metrics:     t.metrics,
		gauges:      gauges,
		logger:      t.logger.With("partition", claim.Partition()),
		tracks:      newPublisher(t.log, claim.Partition(), t.cfg.MaxInFlightBytes),
		deadLetters: newAppends(t.log, topics.DeadLetters, claim.Partition()),
		ticks:       &ticker{log: t.log, partition: claim.Partition()},
		loaded:      &t.loaded,
	}
	err := o.run(ctx)
	switch {
	case ctx.Err() != nil:
		// The claim is lost: its next holder is authoritative, and a failure on
		// the way out changes nothing.
		return nil
	case err != nil:
		return fmt.Errorf("partition %d: %w", claim.Partition(), err)
	}
	return nil
}
