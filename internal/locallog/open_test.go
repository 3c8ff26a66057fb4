package locallog

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"

	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/schemas/topics"
)

func tryOpen(cfg Config, fs vfs.FS) (*Log, error) {
	return open(cfg, topics.All(), newRegistry(), quietLogger, environment{fs: fs, now: time.Now})
}

func TestOpenRefusesAnotherNumberOfPartitions(t *testing.T) {
	fs, cfg := vfs.NewMem(), testConfig()
	require.NoError(t, openTest(t, cfg, fs).Close())
	cfg.Partitions = 7
	_, err := tryOpen(cfg, fs)
	require.ErrorIs(t, err, eventlog.ErrConfiguredOtherwise)
	require.ErrorContains(t, err, "partitions is 7: must be 4")
	cfg.Partitions = 4
	openTest(t, cfg, fs)
}

func TestOpenRefusesADirectoryInUse(t *testing.T) {
	cfg := testConfig()
	cfg.Directory = t.TempDir()
	first := openTest(t, cfg, vfs.Default)
	_, err := tryOpen(cfg, vfs.Default)
	require.ErrorContains(t, err, cfg.Directory)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, first.Close())
	openTest(t, cfg, vfs.Default)
}

// A log holds every vehicle's positions.
func TestDirectoryIsForItsOwnerOnly(t *testing.T) {
	cfg := testConfig()
	cfg.Directory = filepath.Join(t.TempDir(), "data")
	openTest(t, cfg, vfs.Default)
	info, err := os.Stat(cfg.Directory)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
}

func TestConfigNamesAllFaults(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{GroupInterval: -1, LowWaterFreeBytes: -1, TailCacheBytes: -1}.Validate()
	for _, field := range []string{
		"directory", "partitions", "group_interval", "max_buffer_bytes", "max_group_bytes", "tail_cache_bytes", "segment_bytes", "segment_age",
		"block_cache_bytes", "state_memtable_bytes", "retention_interval", "low_water_free_bytes", "space_interval", "handover_timeout",
	} {
		require.ErrorContains(t, err, field+" is ")
	}
	_, err = tryOpen(Config{}, vfs.NewMem())
	require.ErrorContains(t, err, `directory is "": must be set`)
}

// A log without fsync that was not closed may have lost what it acknowledged.
func TestEpoch(t *testing.T) {
	mem, cfg := vfs.NewCrashableMem(), testConfig()
	start := func(sync bool, epoch int64) *Log {
		t.Helper()
		cfg.Sync = sync
		l := openTest(t, cfg, mem)
		require.Equal(t, epoch, l.Epoch())
		return l
	}
	powerCut := func() { mem = mem.CrashClone(vfs.CrashCloneCfg{}) }

	start(true, 0)
	powerCut()
	require.NoError(t, start(false, 0).Close())
	start(false, 0)
	powerCut()
	start(false, 1)
	powerCut()
	start(true, 2)
	powerCut()
	require.NoError(t, start(true, 2).Close())
	require.NoError(t, start(false, 2).Close())
	start(true, 2)
}

// Topics that a later version adds or drops leave the others as they are.
func TestTopicsMayBeAddedAndDropped(t *testing.T) {
	fs, cfg := vfs.NewMem(), testConfig()
	openWith := func(decls []topics.Topic) *Log {
		l, err := open(cfg, decls, newRegistry(), quietLogger, environment{fs: fs, now: time.Now})
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		return l
	}
	all := topics.All()
	one := all[:1]
	l := openWith(one)
	fill(t, l, 100, 2000)
	require.NoError(t, l.Close())
	l = openWith(all)
	appendValues(t, l, topics.Tracks, 1, "a track")
	require.NoError(t, l.Close())
	l = openWith(one)
	fill(t, l, 100, 2000)
	_, err := l.Bounds(t.Context(), topics.Tracks)
	require.ErrorContains(t, err, topics.Tracks)
	require.NoError(t, l.Close())
	l = openWith(all)
	bounds, err := l.Bounds(t.Context(), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, int64(1000), bounds[1].End)
	require.Equal(t, []string{"a track"}, readValues(t, l, topics.Tracks, 1))
}

// The stores' format is raised on purpose only: no older Pebble opens what was raised.
func TestStoreFormatIsPinned(t *testing.T) {
	require.EqualValues(t, 24, layout.StoreFormat)
	require.LessOrEqual(t, layout.StoreFormat, pebble.FormatNewest)
	l := openTest(t, testConfig(), vfs.NewMem())
	require.Equal(t, layout.StoreFormat, l.records.FormatMajorVersion())
	require.Equal(t, layout.StoreFormat, l.state.FormatMajorVersion())
}
