package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Log is the part of eventlog.Log that the matcher needs.
type Log interface {
	Partitions() int32
	Epoch() int64
	Bounds(ctx context.Context, topic string) ([]eventlog.Bounds, error)
	NewReader(ctx context.Context, topic string, start map[int32]int64) (eventlog.Reader, error)
}

// Config sets a follower.
type Config struct {
	// StaleAfter is how far a partition may be behind before it is stale.
	StaleAfter time.Duration
	// RebuildWindow is the stretch of stream time that is read at the start; 0
	// reads everything.
	RebuildWindow time.Duration
	// DispatchMaxAge is how old the newest fix of a dispatchable vehicle may be.
	DispatchMaxAge time.Duration
	// Residence decides which vehicles are kept; nil keeps all.
	Residence *Residence
}

// Deps are what a follower works with.
type Deps struct {
	Log     Log
	Index   *liveindex.Index
	Playout *playout.Buffers
	// Now is the wall clock.
	Now func() time.Time
	// Observe, if not nil, is called with every record that counts, in the order of
	// its partition, after the index has it. It must not keep the record.
	Observe func(partition int32, t *wire.Track)
	// StaleChanged is called when the set of stale partitions has changed.
	StaleChanged func()
	Registerer   prometheus.Registerer
	Logger       *slog.Logger
}

// Follower keeps an index up to date with `tracks`. Its exported methods, but
// Run, may be called by any number of goroutines.
type Follower struct {
	cfg          Config
	log          Log
	logger       *slog.Logger
	now          func() time.Time
	index        *liveindex.Index
	playout      *playout.Buffers
	metrics      *metrics
	resident     *Residence // nil: all vehicles are kept
	skew         *skew
	agreement    agreement
	refusals     refusals
	staleChanged func()
	observe      func(int32, *wire.Track)
	ready, ended atomic.Bool

	partitions []partition // what is not atomic in them is Run's
	// newestStreamMS is the latest stream time of any partition.
	newestStreamMS atomic.Int64
	staleCache     atomic.Pointer[staleCandidates]
	// Run's own:
	track    wire.Track // the record at hand
	whole    wire.Track // and with its points, if somebody plays them out
	logEpoch int64      // the log's epoch at the batch at hand
	nextIDs  [][]byte
	rebuilt  int // partitions that have caught up
}

// New returns a follower that does nothing yet. It fails when the registerer has
// another one's metrics.
func New(cfg Config, deps Deps) (*Follower, error) {
	f := &Follower{
		cfg: cfg, log: deps.Log, logger: deps.Logger, now: deps.Now, index: deps.Index, playout: deps.Playout,
		resident: cfg.Residence, skew: newSkew(deps.Logger, cfg.StaleAfter), staleChanged: deps.StaleChanged, observe: deps.Observe,
		partitions: make([]partition, deps.Log.Partitions()),
		agreement:  agreement{logger: deps.Logger, maxAgeMS: cfg.DispatchMaxAge.Milliseconds()},
	}
	var err error
	f.metrics, err = newMetrics(deps.Registerer, f)
	return f, err
}

// Ready returns whether all partitions have caught up with what was in the log
// at the start. It is false again after Run has ended.
func (f *Follower) Ready() bool { return f.ready.Load() }

// Ended returns whether Run has ended or is about to.
func (f *Follower) Ended() bool { return f.ended.Load() }

// Run follows `tracks` until ctx is done and then returns nil. It ends with an
// error when the log fails, when a record cannot be decoded, and when a gap
// stays, so that records are missing. It must be called once.
func (f *Follower) Run(ctx context.Context) error {
	defer f.ready.Store(false)
	defer f.ended.Store(true) // before it is not ready any more
	background, stop := context.WithCancel(ctx)
	var joined sync.WaitGroup
	joined.Go(func() { f.watchStaleness(background) })
	defer joined.Wait()
	defer stop()
	err := f.follow(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (f *Follower) follow(ctx context.Context) error {
	began := f.now()
	bounds, err := f.log.Bounds(ctx, topics.Tracks)
	if err != nil {
		return fmt.Errorf("ask for the bounds of tracks: %w", err)
	}
	if len(bounds) != len(f.partitions) {
		return fmt.Errorf("tracks has %d partitions, the log has %d", len(bounds), len(f.partitions))
	}
	start, err := f.startOffsets(ctx, bounds)
	if err != nil {
		return fmt.Errorf("find where to start in tracks: %w", err)
	}
	for i := range f.partitions {
		p := &f.partitions[i]
		p.next, p.rebuiltAt = start[int32(i)], bounds[i].End
		p.empty.Store(bounds[i].End == 0)
		f.noteRebuilt(p, began)
	}
	reader, err := f.log.NewReader(ctx, topics.Tracks, start)
	if err != nil {
		return fmt.Errorf("read tracks: %w", err)
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if truncated, ok := errors.AsType[*eventlog.TruncatedError](err); ok {
			if err := f.startBehind(truncated); err != nil {
				return err
			}
			f.noteRebuilt(&f.partitions[truncated.Partition], began)
			_ = reader.Close()
			if reader, err = f.log.NewReader(ctx, topics.Tracks, f.nextOffsets()); err != nil {
				return fmt.Errorf("read tracks: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read tracks: %w", err)
		}
		err = f.apply(batch)
		if missing, ok := errors.AsType[*gapError](err); ok && !f.partitions[batch.Partition].rebuilt {
			f.startBehindGap(missing)
			_ = reader.Close()
			if reader, err = f.log.NewReader(ctx, topics.Tracks, f.nextOffsets()); err != nil {
				return fmt.Errorf("read tracks: %w", err)
			}
			continue
		}
		if err != nil {
			return err
		}
		f.noteRebuilt(&f.partitions[batch.Partition], began)
	}
}

// noteRebuilt makes the role ready when the last partition has caught up with what
// was in the log at the start.
func (f *Follower) noteRebuilt(p *partition, began time.Time) {
	if p.rebuilt || p.next < p.rebuiltAt {
		return
	}
	p.rebuilt = true
	f.unstage(p)
	if f.rebuilt++; f.rebuilt == len(f.partitions) {
		f.ready.Store(true)
		f.logger.Info("the fleet is rebuilt", "vehicles", f.index.Len(), "took", f.now().Sub(began).Round(time.Millisecond))
	}
}

// startBehind deals with records that were deleted before they were read.
func (f *Follower) startBehind(t *eventlog.TruncatedError) error {
	f.metrics.gaps.Inc()
	p := &f.partitions[t.Partition]
	if p.rebuilt {
		return fmt.Errorf("read tracks: %w", t)
	}
	f.logger.Warn("records of tracks were deleted during the rebuild, starting over behind them", "partition", t.Partition, "wanted", t.Want, "first", t.First)
	f.startOver(t.Partition)
	p.next = t.First
	return nil
}

// startBehindGap starts over with the first record behind a gap that stayed.
func (f *Follower) startBehindGap(missing *gapError) {
	f.logger.Warn("a gap in tracks stayed, starting over behind it", "error", missing)
	f.startOver(missing.partition)
	f.partitions[missing.partition].next = missing.gap.offset
}

func (f *Follower) nextOffsets() map[int32]int64 {
	next := make(map[int32]int64, len(f.partitions))
	for i := range f.partitions {
		next[int32(i)] = f.partitions[i].next
	}
	return next
}

// startOver forgets the vehicles of a partition and its position.
func (f *Follower) startOver(number int32) {
	p := &f.partitions[number]
	p.positioned, p.gap, p.departures, p.staged = false, nil, departures{}, staged{}
	if !p.populated {
		return
	}
	p.populated = false
	after := ""
	for {
		page, next := f.index.Page(after, 10_000, nil)
		for i := range page {
			if f.PartitionOf(page[i].ID) == number {
				f.index.Remove(page[i].ID)
			}
		}
		if next == "" {
			return
		}
		after = next
	}
}

// PartitionOf returns the partition of a vehicle.
func (f *Follower) PartitionOf(id string) int32 {
	return eventlog.PartitionOf([]byte(id), int32(len(f.partitions)))
}
