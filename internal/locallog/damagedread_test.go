package locallog

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/schemas/topics"
)

// TestDamageThatAReadMeets flips one byte of the oldest table, which an open does
// not read. The read that meets it is refused with the table's name, the log fails
// as a whole, and every later call returns that failure.
func TestDamageThatAReadMeets(t *testing.T) {
	cfg := testConfig()
	cfg.Directory = filepath.Join(t.TempDir(), "log")
	cfg.SegmentBytes, cfg.TailCacheBytes = 1<<20, 0
	l := openTest(t, cfg, vfs.Default)
	fill(t, l, 1000, 12_000)
	require.NoError(t, l.Close())

	tables, err := filepath.Glob(filepath.Join(cfg.Directory, "records", "*.sst"))
	require.NoError(t, err)
	tables = slices.DeleteFunc(tables, func(name string) bool { // those of headers, which an open reads
		info, err := os.Stat(name)
		require.NoError(t, err)
		return info.Size() < 100_000
	})
	require.Greater(t, len(tables), layout.WalkedSegments)
	data, err := os.ReadFile(tables[0])
	require.NoError(t, err)
	data[len(data)*9/10] ^= 1
	require.NoError(t, os.WriteFile(tables[0], data, 0o644))

	reg := prometheus.NewRegistry()
	l, err = Open(cfg, topics.All(), reg, quietLogger)
	require.NoError(t, err)
	require.NoError(t, l.Err())
	r, err := l.NewReader(t.Context(), topics.Locations, allPartitions(l))
	require.NoError(t, err)
	for read := 0; err == nil; {
		var batch eventlog.Batch
		if batch, err = r.Poll(t.Context()); err == nil {
			read += len(batch.Records)
			require.Less(t, read, 12_000, "the damage is read over")
		}
	}
	require.ErrorContains(t, err, filepath.Base(tables[0]))
	<-l.Failed()
	require.ErrorContains(t, l.Err(), "is damaged")
	require.ErrorContains(t, l.Err(), filepath.Base(tables[0]))
	require.ErrorIs(t, l.Append(t.Context(), topics.Locations, 0, eventlog.Record{}, make(outcomes)), l.Err())
	_, err = l.Bounds(t.Context(), topics.Locations)
	require.ErrorIs(t, err, l.Err())
	require.ErrorIs(t, l.Own(t.Context(), testSpec, nil), l.Err())
	alarmtest.Raised(t, reg, "starling_locallog_failed")
	require.ErrorIs(t, l.Close(), l.Err())
}
