package matcher

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
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/feed"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/playout"
	"github.com/starling-fleet/starling/matcher/supply"
	"github.com/starling-fleet/starling/schemas/starlingv1"
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

// Matcher is the role. Register its door with a gRPC server and call Run once.
type Matcher struct {
	starlingv1.UnimplementedFleetServiceServer

	cfg      Config
	log      Log
	logger   *slog.Logger
	now      func() time.Time
	index    *liveindex.Index
	metrics  *metrics
	watchers *feed.Vehicles
	areas    *feed.Areas
	sessions *feed.Sessions
	supply   *supply.Tree
	counts   *countFeeds
	playout  *playout.Buffers
	eta      eta.Estimator
	resident *residence // nil: all vehicles are kept
	skew     *skew
	ready    atomic.Bool
	stopped  chan struct{} // closed when Run has ended

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

// Option changes what New sets up.
type Option func(*Matcher)

// WithClock sets the wall clock, which ages and staleness are measured
// against. Without it, it is time.Now.
func WithClock(now func() time.Time) Option { return func(m *Matcher) { m.now = now } }

// WithEstimator sets who estimates travel times. Without it, it is what
// Config.ETA describes.
func WithEstimator(e eta.Estimator) Option { return func(m *Matcher) { m.eta = e } }

// New returns a matcher that does nothing yet. It fails when cfg breaks a rule
// or reg has another matcher's metrics.
func New(cfg Config, log Log, reg prometheus.Registerer, logger *slog.Logger, opts ...Option) (*Matcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	m := &Matcher{
		cfg: cfg, log: log, logger: logger, now: time.Now,
		watchers: feed.NewVehicles(cfg.MaxWatchers), sessions: feed.NewSessions(), playout: playout.New(cfg.MaxPlaybackFixes),
		skew:       newSkew(logger, cfg.StaleAfter),
		partitions: make([]partition, log.Partitions()), stopped: make(chan struct{}),
	}
	now := func() time.Time { return m.now() } // an option may set it
	m.areas, m.counts = feed.NewAreas(cfg.MaxWatchers, now), newCountFeeds(cfg.MaxWatchers, now)
	m.supply = supply.New(cfg.SupplyResolution, m.counts.changed)
	m.index = liveindex.New(func(c *liveindex.Change) {
		m.supply.Apply(m.resident.residents(c))
		m.watchers.Changed(c.ID)
		m.areas.Changed(c)
	})
	var err error
	if m.resident, err = cfg.residence(); err != nil {
		return nil, fmt.Errorf("matcher configuration: %w", err)
	}
	if m.eta, err = cfg.ETA.Estimator(); err != nil {
		return nil, fmt.Errorf("matcher configuration: eta: %w", err)
	}
	for _, opt := range opts {
		opt(m)
	}
	if m.metrics, err = newMetrics(reg, m); err != nil {
		return nil, fmt.Errorf("matcher: %w", err)
	}
	return m, nil
}

// Ready says whether the fleet has been rebuilt and calls are served. It is
// false again after Run has ended.
func (m *Matcher) Ready() bool { return m.ready.Load() }

// Run follows `tracks` until ctx is done and then returns nil. It ends with an
// error when the log fails, when a record cannot be decoded, and when a hole
// stays, so that records are missing. Open watch calls end with it. It must be
// called once.
func (m *Matcher) Run(ctx context.Context) error {
	defer m.ready.Store(false)
	defer close(m.stopped)
	background, stop := context.WithCancel(ctx)
	var joined sync.WaitGroup
	joined.Go(func() { m.watchStaleness(background) })
	defer joined.Wait()
	defer stop()
	err := m.follow(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("matcher: %w", err)
	}
	return nil
}

func (m *Matcher) follow(ctx context.Context) error {
	began := m.now()
	bounds, err := m.log.Bounds(ctx, topics.Tracks)
	if err != nil {
		return fmt.Errorf("ask for the bounds of tracks: %w", err)
	}
	if len(bounds) != len(m.partitions) {
		return fmt.Errorf("tracks has %d partitions, the log says %d", len(bounds), len(m.partitions))
	}
	start, err := m.startOffsets(ctx, bounds)
	if err != nil {
		return fmt.Errorf("find where to start in tracks: %w", err)
	}
	for i := range m.partitions {
		p := &m.partitions[i]
		p.next, p.rebuiltAt = start[int32(i)], bounds[i].End
		p.empty.Store(bounds[i].End == 0)
		m.noteRebuilt(p, began)
	}
	reader, err := m.log.NewReader(ctx, topics.Tracks, start)
	if err != nil {
		return fmt.Errorf("read tracks: %w", err)
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if truncated, ok := errors.AsType[*eventlog.TruncatedError](err); ok {
			if err := m.startBehind(truncated); err != nil {
				return err
			}
			m.noteRebuilt(&m.partitions[truncated.Partition], began)
			_ = reader.Close()
			if reader, err = m.log.NewReader(ctx, topics.Tracks, m.nextOffsets()); err != nil {
				return fmt.Errorf("read tracks: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read tracks: %w", err)
		}
		err = m.apply(batch)
		if missing, ok := errors.AsType[*holeError](err); ok && !m.partitions[batch.Partition].rebuilt {
			m.startBehindHole(missing)
			_ = reader.Close()
			if reader, err = m.log.NewReader(ctx, topics.Tracks, m.nextOffsets()); err != nil {
				return fmt.Errorf("read tracks: %w", err)
			}
			continue
		}
		if err != nil {
			return err
		}
		m.noteRebuilt(&m.partitions[batch.Partition], began)
	}
}

// noteRebuilt opens the door when the last partition has caught up with what
// was in the log at the start.
func (m *Matcher) noteRebuilt(p *partition, began time.Time) {
	if p.rebuilt || p.next < p.rebuiltAt {
		return
	}
	p.rebuilt = true
	m.unstage(p)
	if m.rebuilt++; m.rebuilt == len(m.partitions) {
		m.ready.Store(true)
		m.logger.Info("the fleet is rebuilt", "vehicles", m.index.Len(), "took", m.now().Sub(began).Round(time.Millisecond))
	}
}

// startBehind deals with records that were deleted before they were read.
func (m *Matcher) startBehind(t *eventlog.TruncatedError) error {
	m.metrics.holes.Inc()
	p := &m.partitions[t.Partition]
	if p.rebuilt {
		return fmt.Errorf("read tracks: %w", t)
	}
	m.logger.Warn("records of tracks were deleted during the rebuild, starting over behind them", "partition", t.Partition, "wanted", t.Want, "first", t.First)
	m.startOver(t.Partition)
	p.next = t.First
	return nil
}

// startBehindHole starts over with the first record behind a hole that stayed.
func (m *Matcher) startBehindHole(missing *holeError) {
	m.logger.Warn("a hole in tracks stayed, starting over behind it", "error", missing)
	m.startOver(missing.partition)
	m.partitions[missing.partition].next = missing.hole.offset
}

func (m *Matcher) nextOffsets() map[int32]int64 {
	next := make(map[int32]int64, len(m.partitions))
	for i := range m.partitions {
		next[int32(i)] = m.partitions[i].next
	}
	return next
}

// startOver forgets the vehicles of a partition and its position.
func (m *Matcher) startOver(number int32) {
	p := &m.partitions[number]
	p.positioned, p.hole, p.departures, p.staged = false, nil, departures{}, staged{}
	if !p.populated {
		return
	}
	p.populated = false
	after := ""
	for {
		page, next := m.index.Page(after, 10_000, nil)
		for i := range page {
			if m.partitionOf(page[i].ID) == number {
				m.index.Remove(page[i].ID)
			}
		}
		if next == "" {
			return
		}
		after = next
	}
}

func (m *Matcher) partitionOf(id string) int32 {
	return eventlog.PartitionOf([]byte(id), int32(len(m.partitions)))
}
