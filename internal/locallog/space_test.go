package locallog

import (
	"cmp"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// smallDisk describes how much space there is; every append of the record store's
// log takes as much away.
type smallDisk struct {
	vfs.FS
	free  atomic.Int64
	total uint64 // 0 means a tebibyte
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(max(d.free.Load(), 0)), TotalBytes: cmp.Or(d.total, 1<<40)}, nil
}

// TestNearlyFullDisk refuses fixes first, then all appends, keeps what it has,
// and goes on when there is space again.
func TestNearlyFullDisk(t *testing.T) {
	cfg := testConfig()
	cfg.LowWaterFreeBytes = 10 << 20
	cfg.SpaceInterval = time.Hour // the test looks
	disk := &smallDisk{FS: vfs.NewMem()}
	disk.free.Store(100 << 20)
	l := openTest(t, cfg, disk)
	try := func(topic string) error {
		e := make(outcomes, 1)
		err := l.Append(t.Context(), topic, 0, eventlog.Record{Value: []byte("v")}, e)
		if err == nil {
			err = e.next(t).err
		}
		return err
	}
	require.NoError(t, try(topics.Locations))
	require.NoError(t, try(topics.Tracks))

	disk.free.Store(9 << 20)
	l.checkSpace()
	require.ErrorIs(t, try(topics.Locations), eventlog.ErrFull)
	require.ErrorIs(t, l.Refuses(topics.Locations), eventlog.ErrFull)
	alarmtest.Raised(t, metricsOf(l), "starling_locallog_refused_records_total")
	require.NoError(t, l.Refuses(topics.Tracks))
	require.NoError(t, try(topics.Tracks), "what follows from the fixes that were taken still finds space")

	disk.free.Store(4 << 20)
	l.checkSpace()
	require.ErrorIs(t, try(topics.Locations), eventlog.ErrFull)
	require.ErrorIs(t, try(topics.Tracks), eventlog.ErrFull)

	require.Equal(t, []string{"v"}, readValues(t, l, topics.Locations, 0))
	require.Equal(t, []string{"v", "v"}, readValues(t, l, topics.Tracks, 0))

	require.NoError(t, l.Close())
	l = openTest(t, cfg, disk)
	require.ErrorIs(t, try(topics.Tracks), eventlog.ErrFull, "full from the start")

	disk.free.Store(100 << 20)
	l.checkSpace()
	require.NoError(t, l.Refuses(topics.Locations))
	require.NoError(t, try(topics.Locations))
	require.NoError(t, try(topics.Tracks))
	require.Equal(t, []string{"v", "v"}, readValues(t, l, topics.Locations, 0))

	require.ErrorIs(t, l.Refuses("nowhere"), eventlog.ErrUnknownTopic)
	l.fail(errors.New("the disk is gone"))
	require.ErrorContains(t, l.Refuses(topics.Locations), "the disk is gone")
}

// The disk is looked at again before much is written, however long the
// interval.
func TestManyAppendsDoNotOutrunTheLook(t *testing.T) {
	cfg := testConfig()
	cfg.LowWaterFreeBytes = 10 << 20
	cfg.SpaceInterval = time.Hour
	disk := &smallDisk{FS: vfs.NewMem()}
	disk.free.Store(20 << 20)
	l := openTest(t, cfg, disk)
	disk.free.Store(0) // someone else takes the rest
	e := make(outcomes, 100_000)
	taken, refused := 0, error(nil)
	for refused == nil {
		if refused = l.Append(t.Context(), topics.Locations, 0, eventlog.Record{Value: make([]byte, 10_000)}, e); refused == nil {
			taken++
			require.Less(t, taken, 2000, "20 MB were taken")
		}
	}
	require.ErrorIs(t, refused, eventlog.ErrFull)
	for range taken {
		require.NoError(t, e.next(t).err)
	}
}

// The low-water mark is a share of the disk, within bounds.
func TestLowWaterFollowsTheDisk(t *testing.T) {
	cfg := DefaultConfig()
	for _, disk := range []struct {
		total uint64
		low   int64
	}{
		{1 << 30, 256 << 20},
		{100_000_000_000, 5_000_000_000},
		{1 << 50, 16 << 30},
	} {
		require.Equal(t, disk.low, cfg.lowWater(disk.total), "disk of %d bytes", disk.total)
	}
	cfg.LowWaterPercent, cfg.LowWaterFreeBytes = 0, 7
	require.Equal(t, int64(7), cfg.lowWater(1<<50))
}

// A disk that is too small for what is set is named when the log is opened.
func TestADiskThatIsTooSmallIsSaid(t *testing.T) {
	for total, want := range map[uint64]string{
		5 << 20: `level=ERROR msg="the disk is too small for the log: fixes will soon be refused" total_bytes=5242880`,
		1 << 40: `level=INFO msg="the log's disk" total_bytes=1099511627776`,
	} {
		var out strings.Builder
		disk := &smallDisk{FS: vfs.NewMem(), total: total}
		disk.free.Store(90 << 20)
		l, err := open(testConfig(), topics.All(), newRegistry(), slog.New(slog.NewTextHandler(&out, nil)), environment{fs: disk, now: time.Now})
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.Contains(t, out.String(), want)
		if total == 5<<20 {
			alarmtest.Reads(t, out.String(), "the disk is too small for the log")
		}
	}
}
