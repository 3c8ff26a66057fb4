package history_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// ask publishes what the tracker does of an erasure.
func ask(t *testing.T, store *memlog.Store, vehicle string, partition int32, untilMS int64) {
	t.Helper()
	log := memlog.Open(store, memlog.Options{})
	var done stored
	done.Add(1)
	track := wire.Track{Epoch: 1, SourceOffset: 1_000_000, ErasedUntilMS: untilMS}
	require.NoError(t, log.Append(t.Context(), topics.Tracks, partition, eventlog.Record{Key: []byte(vehicle), Value: track.Append(nil)}, &done))
	done.Wait()
	require.NoError(t, log.Close())
}

// failing is a sink that fails at its first erasures: before them, or behind.
type failing struct {
	history.Sink
	left atomic.Int32
}

func (f *failing) Erase(ctx context.Context, e row.Erasure) (row.Erased, error) {
	n := f.left.Add(-1)
	if n >= 1 {
		return row.Erased{}, errDead
	}
	erased, err := f.Sink.Erase(ctx, e)
	if n >= 0 {
		return row.Erased{}, errDead
	}
	return erased, err
}

// An erasure takes a vehicle's fixes out of the files that have them, and what is
// published again later does not bring them back. Nothing else changes.
func TestAnErasedVehicleStaysErased(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), time.Minute)
	cfg := settings()
	dir := filepath.Join(t.TempDir(), "lake")
	files, err := lake.NewSink(dir)
	require.NoError(t, err)
	sink := &failing{Sink: files}
	sink.left.Store(2)
	want := fleet(t, store, 1, 120)
	p := start(t, store, memlog.Options{}, cfg, sink)
	settled(t, store)
	requireLake(t, dir, want)

	const vehicle = "car-0-1"
	untilMS := want[vehicle][20].DeviceTimeMS
	ask(t, store, vehicle, 0, untilMS)
	want[vehicle] = want[vehicle][20:]
	settled(t, store)
	requireLake(t, dir, want)
	p.end(t)

	fleet(t, store, 1, 120) // once more, to another owner
	p = start(t, store, memlog.Options{}, cfg, files)
	settled(t, store)
	requireLake(t, dir, want)
	p.end(t)
	report, err := os.ReadFile(filepath.Join(dir, "_erasures", "done-erasure-0-1-1000000.json"))
	require.NoError(t, err)
	require.Contains(t, string(report), `"vehicle_id":"car-0-1"`)
	require.Contains(t, string(report), `"erased_at":"`)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NotContains(t, path, ".tmp")
		return err
	}))
}

// An erasure is not lost with a batch that a dead sink has not taken for too long.
func TestAnErasureOutlivesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.NewStore(partitions, topics.All(), time.Minute)
		cfg := settings()
		cfg.MaxLag = 10 * time.Minute
		fleet(t, log, 1, 60)
		ask(t, log, "car-0-1", 0, 1)
		dead := &refusing{gaps: make(chan *starlingv1.HistoryGap, 100)}
		dead.refuses.Store(true)
		p := start(t, log, memlog.Options{}, cfg, dead)
		settled(t, log) // given up
		p.end(t)
		require.Zero(t, dead.erasures.Load())
		dead.refuses.Store(false)
		fleet(t, log, 1, 60)
		p = start(t, log, memlog.Options{}, cfg, dead)
		settled(t, log)
		p.end(t)
		require.Equal(t, int64(1), dead.erasures.Load())
	})
}
