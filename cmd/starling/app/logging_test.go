package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
)

// lineBuffer is a log that a test reads while it is written.
type lineBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lineBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(strings.TrimSpace(b.buf.String()), "\n")
}

func TestDurationsAreReadable(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		logger, err := NewLogger(LogConfig{Level: "info", Format: format}, &out)
		require.NoError(t, err)
		logger.Info("waited", "took", 1234567890*time.Nanosecond, "short", 1234567*time.Nanosecond, slog.Group("g", "least", 12*time.Nanosecond))
		for _, want := range []string{"1.235s", "1.235ms", "12ns"} {
			require.Contains(t, out.String(), want)
		}
		require.NotContains(t, out.String(), "1234567")
	}
}

// gRPC's own lines are the process's: JSON, and what it calls information at debug.
func TestLibrariesLogToTheProcessesLog(t *testing.T) {
	var out bytes.Buffer
	logger, err := NewLogger(LogConfig{Level: "info", Format: "json"}, &out)
	require.NoError(t, err)
	g := &grpcLogger{}
	g.Errorf("before a process runs %d", 1)
	g.use(logger)
	g.Info("a", "b")
	g.InfoDepth(1, "c")
	require.False(t, g.V(0))
	require.Empty(t, out.String())
	g.Warningf("client %s broke off", "x")
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "client x broke off", line["msg"])
	require.Equal(t, "WARN", line["level"])
	require.Equal(t, "grpc", line["component"])
}

func TestLogFileIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "starling.log")
	out, err := OpenLogOutput(LogConfig{File: path}, os.Stderr)
	require.NoError(t, err)
	write := func(s string) { _, err := out.Write([]byte(s)); require.NoError(t, err) }
	write("one\n")
	require.NoError(t, os.Rename(path, path+".1"))
	write("two\n")
	require.NoError(t, out.Reopen())
	write("three\n")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.ErrorContains(t, out.Reopen(), "log: file")
	write("four\n") // goes on where it was
	require.NoError(t, out.Close())
	require.NoError(t, out.Close())
	old, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", string(old))

	_, err = OpenLogOutput(LogConfig{File: filepath.Join(path, "no", "such", "folder")}, os.Stderr)
	require.ErrorContains(t, err, "log: file")
	var stderr bytes.Buffer
	out, err = OpenLogOutput(LogConfig{}, &stderr)
	require.NoError(t, err)
	require.NoError(t, out.Reopen())
	write("five\n")
	require.Equal(t, "five\n", stderr.String())
	require.NoError(t, out.Close())
}

// Every part is read again, also after one that can't be.
func TestReload(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dev = true
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	a, err := New(cfg, []Role{Tracker}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, a.Reload())
	var order []string
	broken := errors.New("it is not there")
	a.OnReload("certificates", func() error { order = append(order, "certificates"); return broken })
	a.OnReload("keys", func() error { order = append(order, "keys"); return nil })
	err = a.Reload()
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "certificates: it is not there")
	require.Equal(t, []string{"certificates", "keys"}, order)
	broken = nil
	require.NoError(t, a.Reload())
	for result, n := range map[string]float64{"ok": 1, "failed": 1} {
		require.Equal(t, n, testutil.ToFloat64(a.life.reloads.WithLabelValues("certificates", result)))
	}
	alarmtest.Raised(t, a.Registry(), `starling_reloads_total{result="failed"}`)
}

// The limit of Go's memory follows the container's, beside the stores.
func TestMemoryLimitFollowsTheContainer(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, nil))
	limitMemory(1<<30, memlimit.Limit(11<<30), logger)
	require.Contains(t, out.String(), "gomemlimit_bytes=9663676416 container_bytes=11811160064 store_bytes=1073741824")
	limitMemory(1<<30, memlimit.Limit(1<<30), logger) // at least nine twentieths
	require.Contains(t, out.String(), "gomemlimit_bytes=483183820")
	limitMemory(0, func() (uint64, error) { return 0, memlimit.ErrNoLimit }, logger)
	require.Contains(t, out.String(), "the process has no memory limit")
	limitMemory(0, func() (uint64, error) { return 0, errors.New("unreadable") }, logger)
	require.Contains(t, out.String(), "level=WARN")
	t.Setenv("GOMEMLIMIT", "2GiB")
	limitMemory(0, memlimit.Limit(1<<30), logger)
	require.Contains(t, out.String(), "the memory limit of Go is the environment's\" gomemlimit=2GiB")
	cfg := DefaultConfig()
	require.Equal(t, int64(32+8+2*(10+8+64))<<20, cfg.storeBytes())
	cfg.Kafka.Brokers = []string{"k:1"}
	require.Zero(t, cfg.storeBytes())
}
