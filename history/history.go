package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Log is the part of eventlog.Log that the role needs.
type Log interface {
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
	Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error
}

// Sink keeps rows. lake.Sink and clickhouse.Sink are sinks.
type Sink interface {
	// Write keeps a batch, durably and whole. The same batch may come again.
	Write(ctx context.Context, b *row.Batch) (row.Written, error)
	// WriteGap puts a range on record that the sink will not be given.
	WriteGap(ctx context.Context, partition int32, gap *starlingv1.HistoryGap) error
	// Erase erases fixes of a vehicle, durably, and has every later Write leave them out.
	// The same erasure may come again.
	Erase(ctx context.Context, e row.Erasure) (row.Erased, error)
}

// Deps are what the role works with.
type Deps struct {
	Log        Log
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Lake and ClickHouse, where they are not nil, are written to in place of the
	// sinks that the configuration names.
	Lake, ClickHouse Sink
	// Now is the wall clock by which a failing sink is given up; nil means time.Now.
	Now func() time.Time
}

// History is the role: one writer for each sink, which know nothing of each other, so
// that a slow or dead sink holds up no other. Call Run once.
type History struct {
	writers []*writer
	closers []io.Closer
}

// New returns a role that does nothing yet. It fails when cfg breaks a rule, a sink
// can't be made or the registerer has another one's metrics.
func New(cfg Config, deps Deps) (*History, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("history configuration: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	h := &History{}
	if deps.Lake == nil && cfg.LakeDir != "" {
		s, err := lake.NewSink(cfg.LakeDir)
		if err != nil {
			return nil, err
		}
		deps.Lake = s
	}
	if deps.ClickHouse == nil && cfg.ClickHouse.On() {
		s, err := clickhouse.NewSink(cfg.ClickHouse)
		if err != nil {
			return nil, err
		}
		deps.ClickHouse = s
		h.closers = append(h.closers, s)
	}
	for _, w := range []struct {
		sink   Sink
		limits limits
	}{
		{deps.Lake, limits{name: "lake", group: cfg.LakeGroup, maxRows: cfg.BatchMaxRows, interval: cfg.BatchInterval, maxLag: cfg.MaxLag, joinAfter: cfg.LakeJoinAfter}},
		{deps.ClickHouse, limits{name: "clickhouse", group: cfg.ClickHouseGroup, maxRows: cfg.ClickHouseBatchMaxRows, interval: cfg.ClickHouseBatchInterval, maxLag: cfg.MaxLag, rollup: cfg.ClickHouse.RollupInterval}},
	} {
		if w.sink == nil {
			continue
		}
		made, err := newWriter(w.limits, w.sink, &deps)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		h.writers = append(h.writers, made)
	}
	return h, nil
}

// Ready returns whether the partitions that fell to this process are served.
func (h *History) Ready() bool {
	for _, w := range h.writers {
		if !w.ready() {
			return false
		}
	}
	return true
}

// Run serves partitions until ctx is done; then it writes what it has gathered and
// returns nil. When the log fails, all partitions are given up and taken up again
// after a pause.
func (h *History) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range h.writers {
		group.Go(func() error { return w.run(ctx) })
	}
	return errors.Join(group.Wait(), h.close())
}

func (h *History) close() error {
	var faults []error
	for _, c := range h.closers {
		faults = append(faults, c.Close())
	}
	return errors.Join(faults...)
}
