package locallog

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/logtest"
	"github.com/starling-fleet/starling/schemas/topics"
)

var quietLogger = slog.New(slog.NewTextHandler(io.Discard, nil))

// testConfig is small, so that segments end and caches overflow.
func testConfig() Config {
	c := DefaultConfig()
	c.Directory = "/log"
	c.Partitions = logtest.Partitions
	c.GroupInterval = 0
	c.MaxBufferBytes = 256 << 10
	c.MaxGroupBytes = 64 << 10
	c.TailCacheBytes = 64 << 10
	c.SegmentBytes = 64 << 10
	c.StateMemtableBytes = 1 << 20
	c.BlockCacheBytes = 1 << 20
	c.LowWaterFreeBytes, c.LowWaterPercent = 1<<20, 0
	c.HandoverTimeout = 10 * time.Second
	c.RetentionInterval = time.Hour
	return c
}

func openTest(t testing.TB, cfg Config, fs vfs.FS) *Log {
	t.Helper()
	l, err := open(cfg, topics.All(), newRegistry(), quietLogger, environment{fs: fs, now: time.Now})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// metricsOf are the metrics of a log that was opened with newRegistry.
func metricsOf(l *Log) prometheus.Gatherer { return l.metrics.reg.(prometheus.Gatherer) }

func TestConformance(t *testing.T) {
	t.Run("synced", func(t *testing.T) {
		logtest.Run(t, func(t *testing.T) logtest.Harness { return harness(t, true) })
	})
	t.Run("unsynced", func(t *testing.T) {
		logtest.Run(t, func(t *testing.T) logtest.Harness { return harness(t, false) })
	})
}

func harness(t *testing.T, sync bool) logtest.Harness {
	cfg := testConfig()
	cfg.Sync = sync
	mem := vfs.NewCrashableMem()
	gate := newGate(mem)
	newest := openTest(t, cfg, gate)
	h := logtest.Harness{
		Log:     newest,
		Another: func(*testing.T) eventlog.Log { return newest },
		Reopen: func(t *testing.T) eventlog.Log {
			require.NoError(t, newest.Close())
			newest = openTest(t, cfg, gate)
			return newest
		},
		Truncate: func(t *testing.T, topic string, partition int32, before int64) {
			require.NoError(t, newest.truncate(&newest.topics[topic].partitions[partition], before))
			require.NoError(t, newest.sweep())
		},
		Depose:      func(_ *testing.T, spec eventlog.OwnSpec) { newest.ownersOf(spec).Depose() },
		Fail:        func(*testing.T) { newest.fail(errors.New("the disk is gone")) },
		BufferBytes: int(cfg.MaxBufferBytes),
	}
	if !sync {
		h.Without = []string{"Crash", "Hold"} // it promises less
		return h
	}
	h.Hold = gate.hold
	h.Crash = func(t *testing.T) eventlog.Log {
		mem = mem.CrashClone(vfs.CrashCloneCfg{})
		gate = newGate(mem)
		newest = openTest(t, cfg, gate)
		return newest
	}
	return h
}
