package history_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

const partitions = 2

var spec = eventlog.OwnSpec{Group: "starling-history-lake", Source: topics.Tracks, State: topics.HistoryState}

// stored waits for appends.
type stored struct{ sync.WaitGroup }

func (s *stored) Done(int64, error) { s.WaitGroup.Done() }

// fleet publishes what the tracker's step makes of a few vehicles' reports and
// returns the rows that history must keep, by vehicle. Each partition's fixes go over
// an hour's end, and every few records are published twice, as by a tracker that was
// killed between two checkpoints.
func fleet(t *testing.T, store *memlog.Store, epoch int64, reports int) map[string][]row.Fix {
	t.Helper()
	log := memlog.Open(store, memlog.Options{})
	var appends stored
	var rows []row.Fix
	for n := range int32(partitions) {
		p, err := step.NewPartition(step.DefaultSettings(), epoch)
		require.NoError(t, err)
		startMS := time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC).UnixMilli()
		var again []eventlog.Record
		for i := range int64(reports) {
			vehicle := fmt.Sprintf("car-%d-%d", n, i%3)
			atMS := startMS + i*1000
			fixes := []wire.Fix{{DeviceTimeMS: atMS, LatDeg: 30 + float64(i)*1e-5, LonDeg: -97, Has: wire.HasAccuracy, AccuracyM: 5}, {DeviceTimeMS: atMS + 500, LatDeg: 30 + float64(i)*1e-5, LonDeg: -97}}
			if i%17 == 16 {
				fixes[0].DeviceTimeMS = max(startMS-1, atMS-45_000) // late
			}
			loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: i + 1, Fixes: fixes}}
			res, err := p.Step(step.Record{Offset: i, AppendTimeMS: atMS + 600, Key: []byte(vehicle), Value: loc.Append(nil)})
			require.NoError(t, err)
			rows = row.Append(rows, n, vehicle, res.Track)
			rec := eventlog.Record{Key: []byte(vehicle), Value: res.Track.Append(nil)}
			again = append(again, rec)
			appends.Add(1)
			require.NoError(t, log.Append(t.Context(), topics.Tracks, n, rec, &appends))
			if i%20 == 19 {
				for _, r := range again[len(again)-7:] {
					appends.Add(1)
					require.NoError(t, log.Append(t.Context(), topics.Tracks, n, r, &appends))
				}
			}
		}
	}
	appends.Wait()
	require.NoError(t, log.Close())
	want := map[string][]row.Fix{}
	for _, r := range row.Truth(rows) {
		want[r.Vehicle] = append(want[r.Vehicle], r.Bare())
	}
	return want
}

func settings() history.Config {
	cfg := history.DefaultConfig()
	cfg.BatchMaxRows, cfg.BatchInterval = 40, 50*time.Millisecond
	return cfg
}

// process is one process with the role.
type process struct {
	registry *prometheus.Registry
	log      *memlog.Log
	stop     context.CancelFunc
	ended    chan error
}

func start(t *testing.T, store *memlog.Store, opts memlog.Options, cfg history.Config, sink history.Sink) *process {
	t.Helper()
	p := &process{registry: prometheus.NewRegistry(), log: memlog.Open(store, opts), ended: make(chan error, 1)}
	h, err := history.New(cfg, history.Deps{Log: p.log, Registerer: p.registry, Logger: slog.New(slog.DiscardHandler), Lake: sink})
	require.NoError(t, err)
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	go func() { p.ended <- h.Run(ctx) }()
	return p
}

// end stops the process in good order.
func (p *process) end(t *testing.T) {
	t.Helper()
	p.stop()
	require.NoError(t, <-p.ended)
	require.NoError(t, p.log.Close())
}

// settled waits until everything in `tracks` has been settled.
func settled(t *testing.T, store *memlog.Store) { settledBy(t, store, spec) }

// settledBy is settled for the writers of one sink.
func settledBy(t *testing.T, store *memlog.Store, spec eventlog.OwnSpec) {
	t.Helper()
	require.Eventually(t, func() bool {
		for n := range int32(partitions) {
			records := store.Records(topics.Tracks, n)
			if _, resume := store.State(spec, n); resume != records[len(records)-1].Offset+1 {
				return false
			}
		}
		return true
	}, 20*time.Minute, 50*time.Millisecond)
}

func requireLake(t *testing.T, dir string, want map[string][]row.Fix) {
	t.Helper()
	require.Len(t, want, 3*partitions)
	r, err := lake.NewReader(dir)
	require.NoError(t, err)
	for vehicle, fixes := range want {
		var got []row.Fix
		for f, err := range r.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, ToMS: 1 << 42}) {
			require.NoError(t, err)
			got = append(got, f)
		}
		require.Equal(t, fixes, got, vehicle)
	}
}

func TestEveryFixIsKeptOnce(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	want := fleet(t, store, 1, 120)
	p := start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	requireLake(t, cfg.LakeDir, want)
	p.end(t)
}

// dying is a sink that a process dies in: before or after the nth write.
type dying struct {
	history.Sink
	before, after int32
	n             atomic.Int32
	die           func()
}

var errDead = errors.New("the process is dead")

func (d *dying) Write(ctx context.Context, b *row.Batch) (row.Written, error) {
	n := d.n.Add(1)
	if n == d.before {
		d.die()
		return row.Written{}, errDead
	}
	w, err := d.Sink.Write(ctx, b)
	if n == d.after {
		d.die()
		return row.Written{}, errDead
	}
	return w, err
}

// The role is killed before and after each write and each checkpoint, over and over
// with a later one, and a successor with other limits on its batches takes over. Rows,
// distinct (vehicle, time) and content of every vehicle are those of the input.
func TestKilledAtEveryStep(t *testing.T) {
	for _, at := range []string{"before write", "after write", "before checkpoint", "after checkpoint"} {
		t.Run(at, func(t *testing.T) {
			for nth := int32(1); nth <= 3; nth++ {
				killedAt(t, at, nth)
			}
		})
	}
}

func killedAt(t *testing.T, at string, nth int32) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	want := fleet(t, store, 1, 45)
	sink, err := lake.NewSink(cfg.LakeDir)
	require.NoError(t, err)
	killed := make(chan struct{})
	d := &dying{Sink: sink}
	var checkpoints atomic.Int32
	die := func(when string) func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error {
		return func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error {
			if at == when && checkpoints.Add(1) == nth {
				d.die()
				return errDead
			}
			return nil
		}
	}
	switch at {
	case "before write":
		d.before = nth
	case "after write":
		d.after = nth
	}
	var p *process
	d.die = func() { close(killed) }
	p = start(t, store, memlog.Options{BeforeCheckpoint: die("before checkpoint"), AfterCheckpoint: die("after checkpoint")}, cfg, d)
	<-killed
	p.log.Kill()
	p.stop()
	<-p.ended
	cfg.BatchMaxRows = 70
	p = start(t, store, memlog.Options{}, cfg, sink)
	settled(t, store)
	requireLake(t, cfg.LakeDir, want)
	p.end(t)
}

// What has been gathered is written when the role stops.
func TestAStopWritesWhatWasGathered(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.BatchMaxRows, cfg.BatchInterval, cfg.LakeDir = 100_000, time.Hour, filepath.Join(t.TempDir(), "lake")
	want := fleet(t, store, 1, 30)
	p := start(t, store, memlog.Options{}, cfg, nil)
	require.Eventually(t, func() bool {
		v, _ := alarmtest.Value(t, p.registry, "starling_history_lag_seconds")
		return v > 0
	}, time.Minute, time.Millisecond)
	p.end(t)
	_, first := store.State(spec, 0)
	_, second := store.State(spec, 1)
	require.Positive(t, max(first, second), "what had been read is settled")
	cfg.BatchInterval = 50 * time.Millisecond
	p = start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	requireLake(t, cfg.LakeDir, want)
	p.end(t)
}

// A batch has one epoch, and a fix that two epochs have stays as the first has it.
func TestTheFirstEpochStands(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	want := fleet(t, store, 1, 40)
	store.SetEpoch(2)
	for vehicle, fixes := range fleet(t, store, 2, 50) {
		known := map[int64]bool{}
		for _, f := range want[vehicle] {
			known[f.DeviceTimeMS] = true
		}
		want[vehicle] = append(want[vehicle], slices.DeleteFunc(fixes, func(f row.Fix) bool { return known[f.DeviceTimeMS] })...)
		slices.SortFunc(want[vehicle], row.Compare)
	}
	p := start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	requireLake(t, cfg.LakeDir, want)
	p.end(t)
}

// refusing is a sink that takes no rows while it is told not to.
type refusing struct {
	refuses atomic.Bool
	gaps    chan *starlingv1.HistoryGap
	rows    atomic.Int64
	// erasures is how many there were.
	erasures atomic.Int64
}

func (r *refusing) Write(_ context.Context, b *row.Batch) (row.Written, error) {
	if r.refuses.Load() {
		return row.Written{}, errors.New("no space")
	}
	r.rows.Add(int64(len(b.Rows)))
	return row.Written{Files: 1}, nil
}

func (r *refusing) WriteGap(_ context.Context, _ int32, gap *starlingv1.HistoryGap) error {
	if r.refuses.Load() {
		return errors.New("no space")
	}
	r.gaps <- gap
	return nil
}

func (r *refusing) Erase(context.Context, row.Erasure) (row.Erased, error) {
	if r.refuses.Load() {
		return row.Erased{}, errors.New("no space")
	}
	r.erasures.Add(1)
	return row.Erased{}, nil
}

// A sink that fails is waited for; once its records are older than max_lag they are
// given up, so that the log may delete them, and the gap is put on record when the
// sink is back.
func TestASinkThatFailsForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(partitions, topics.All(), time.Minute)
		cfg := settings()
		cfg.MaxLag = 10 * time.Minute
		fleet(t, store, 1, 60)
		sink := &refusing{gaps: make(chan *starlingv1.HistoryGap, 100)}
		sink.refuses.Store(true)
		p := start(t, store, memlog.Options{}, cfg, sink)
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		_, resume := store.State(spec, 0)
		require.LessOrEqual(t, resume, int64(0), "it is not given up yet")
		alarmtest.Raised(t, p.registry, "starling_history_write_failures_total")
		alarmtest.RaisedTo(t, p.registry, "starling_history_lag_seconds", func(v float64) bool { return v > 500 })
		settled(t, store)
		alarmtest.Raised(t, p.registry, "starling_history_gaps_total")
		sink.refuses.Store(false)
		fleet(t, store, 1, 60)
		settled(t, store)
		require.Positive(t, sink.rows.Load())
		gaps := len(sink.gaps)
		require.Equal(t, partitions, gaps, "what follows each other is one gap")
		g := <-sink.gaps
		require.Equal(t, starlingv1.HistoryGapReason_HISTORY_GAP_REASON_SINK_BEHIND, g.Reason)
		require.Equal(t, int64(0), g.First)
		p.end(t)
	})
}

// Tracks that the log has deleted unread are a gap on record, and history goes on.
func TestDeletedTracksAreAGap(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	fleet(t, store, 1, 60)
	p := start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	p.end(t)
	end := int64(len(store.Records(topics.Tracks, 1)))
	fleet(t, store, 1, 60)
	store.Truncate(topics.Tracks, 1, end+10)
	p = start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	alarmtest.Raised(t, p.registry, "starling_history_gaps_total")
	p.end(t)
	require.FileExists(t, filepath.Join(cfg.LakeDir, "_gaps", fmt.Sprintf("gap-1-%d-%d.json", end, end+9)))
}

// A record that can't be decoded is counted and costs no other its rows.
func TestARecordThatCannotBeDecoded(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	cfg.LakeDir = filepath.Join(t.TempDir(), "lake")
	log := memlog.Open(store, memlog.Options{})
	var appends stored
	appends.Add(1)
	require.NoError(t, log.Append(t.Context(), topics.Tracks, 0, eventlog.Record{Key: []byte("car"), Value: []byte{0xff}}, &appends))
	appends.Wait()
	require.NoError(t, log.Close())
	want := fleet(t, store, 1, 30)
	p := start(t, store, memlog.Options{}, cfg, nil)
	settled(t, store)
	alarmtest.Raised(t, p.registry, "starling_history_undecodable_records_total")
	requireLake(t, cfg.LakeDir, want)
	p.end(t)
}

func TestConfigNamesItsFaults(t *testing.T) {
	err := history.Config{}.Validate()
	for _, field := range []string{"lake_group", "batch_max_rows", "batch_interval", "max_lag", "clickhouse_group", "clickhouse_batch_max_rows", "clickhouse_batch_interval", "clickhouse: protocol"} {
		require.ErrorContains(t, err, field)
	}
	require.NoError(t, history.DefaultConfig().Validate())
}
