package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/topics"
)

func runLog(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	o := runCLI(t, t.Context(), "", append([]string{"log"}, args...)...)
	return o.code, o.out, o.err
}

type stored chan error

func (a stored) Done(_ int64, err error) { a <- err }

// A log is checked, spoiled, refused with the command that repairs it, repaired,
// and checked again.
func TestLogCheckAndRepair(t *testing.T) {
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Partitions, cfg.LowWaterFreeBytes = filepath.Join(t.TempDir(), "log"), 2, 1<<20
	openIt := func() (*locallog.Log, error) {
		return locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	}
	l, err := openIt()
	require.NoError(t, err)
	done := make(stored, 100)
	for range cap(done) {
		require.NoError(t, l.Append(t.Context(), topics.Locations, 1, eventlog.Record{Value: make([]byte, 300)}, done))
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.NoError(t, l.Close())

	code, out, _ := runLog(t, "check", "--data", cfg.Directory)
	require.Equal(t, 0, code)
	require.Contains(t, out, "everything that was acknowledged is there")

	logs, err := filepath.Glob(filepath.Join(cfg.Directory, "records", "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, logs)
	for _, name := range logs {
		require.NoError(t, os.Truncate(name, 100))
	}
	_, err = openIt()
	require.ErrorContains(t, err, "locations partition 1: offsets 0 to 99 (100 records)")
	code, out, errOut := runLog(t, "check", "--data", cfg.Directory)
	require.Equal(t, exitNo, code)
	require.Contains(t, out, "damage: locations partition 1: offsets 0 to 99 (100 records)")
	require.Contains(t, errOut, "starling log repair")
	code, out, _ = runLog(t, "repair", "--data", cfg.Directory)
	require.Equal(t, 0, code)
	require.Contains(t, out, "With --yes")
	_, err = openIt()
	require.Error(t, err, "nothing was done yet")
	code, out, _ = runLog(t, "repair", "--data", cfg.Directory, "--yes")
	require.Equal(t, 0, code)
	require.Contains(t, out, "locations partition 1: offsets 0 to 99 (100 records) are lost")
	require.Contains(t, out, "epoch 2")
	code, _, _ = runLog(t, "check", "--data", cfg.Directory)
	require.Equal(t, 0, code)
	l, err = openIt()
	require.NoError(t, err)
	require.Equal(t, int64(2), l.Epoch())
	require.NoError(t, l.Close())

	code, _, _ = runLog(t, "check")
	require.Equal(t, 2, code)
	code, _, _ = runLog(t, "check", "--data", t.TempDir())
	require.Equal(t, 2, code)
}
