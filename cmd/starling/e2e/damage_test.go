package e2e

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// damageDrain is the drain timeout of the processes that meet damage.
const damageDrain = 3 * time.Second

// appendTicks appends ticks to partition 0 of a log that is closed again.
func appendTicks(t *testing.T, dir string, n int) {
	t.Helper()
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Partitions, cfg.SegmentBytes = dir, topics.DefaultPartitions, 512<<10
	log, err := locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	tick := wire.Location{Kind: wire.KindTick}
	rec := eventlog.Record{Key: make([]byte, 24), Value: tick.Append(nil)}
	const burst = 4000 // are one chunk: a segment ends with a group, so none is much larger than it is to be
	done := make(appended, burst)
	for range n / burst {
		for range burst {
			require.NoError(t, log.Append(t.Context(), topics.Locations, 0, rec, done))
		}
		for range burst {
			require.NoError(t, <-done)
		}
	}
	require.NoError(t, log.Close())
}

// damagedTable makes a log with one flipped byte, in a block that an open does not
// read: that reads the newest segments and the others' headers. A tracker without a
// checkpoint replays more than ten thousand records before it gets there.
func damagedTable(t *testing.T) (dir, table string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log")
	appendTicks(t, dir, 260_000)
	tables, err := filepath.Glob(filepath.Join(dir, "records", "*.sst"))
	require.NoError(t, err)
	tables = slices.DeleteFunc(tables, func(name string) bool { // those of headers, which an open reads
		info, err := os.Stat(name)
		require.NoError(t, err)
		return info.Size() < 100_000
	})
	require.Greater(t, len(tables), 8, "the newest segments, which an open reads, must be others")
	table = tables[1]
	info, err := os.Stat(table)
	require.NoError(t, err)
	size := info.Size()
	f, err := os.OpenFile(table, os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, 1)
	at := size * 9 / 10
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	t.Logf("%d tables; the byte at %d of %d in %s is flipped", len(tables), at, size, table)
	return dir, table
}

// output gathers what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// TestADamagedTableEndsTheProcess lets a tracker that starts read one flipped byte.
// The process must end with exit code 1 within the drain timeout although a call
// stays open, with liveness and readiness failing meanwhile; and SIGTERM must not
// be lost on it.
func TestADamagedTableEndsTheProcess(t *testing.T) {
	t.Parallel()
	left, table := damagedTable(t)
	for name, terminate := range map[string]bool{"by itself": false, "with SIGTERM": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.CopyFS(dir, os.DirFS(left)))
			meetDamage(t, dir, filepath.Base(table), terminate)
		})
	}
}

func meetDamage(t *testing.T, dir, table string, terminate bool) {
	t.Helper()
	addrs, err := freeport.Addrs(3)
	require.NoError(t, err)
	out := &output{}
	cmd := exec.Command(binary(t), "up", "--dev", "--local-directory", dir, "--server-drain-timeout", damageDrain.String(),
		"--server-ingest-listen", addrs[0], "--server-matcher-listen", addrs[1], "--server-admin-listen", addrs[2], "--server-json-listen", "")
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })

	// A call that its client never ends, so that the stop lasts as long as it may.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addrs[0])
		return err == nil && conn.Close() == nil
	}, time.Minute, 2*time.Millisecond, "ingest does not listen: %s", out)
	call, err := reflection.NewServerReflectionClient(dial(t, addrs[0])).ServerReflectionInfo(ctx, grpc.WaitForReady(true))
	require.NoError(t, err)
	require.NoError(t, call.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
	_, err = call.Recv()
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, health(addrs[2], "/healthz"), "the damage must not be met before the call is open: %s", out)

	failing := func() bool { return health(addrs[2], "/healthz") == http.StatusServiceUnavailable }
	require.Eventually(t, failing, 2*time.Minute, 5*time.Millisecond, "liveness does not fail: %s", out)
	failed := time.Now()
	require.Equal(t, http.StatusServiceUnavailable, health(addrs[2], "/readyz"))
	if terminate {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		require.FailNow(t, "the process does not end", out.String())
	}
	require.Less(t, time.Since(failed), damageDrain+5*time.Second, "it takes longer than the drain timeout")
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), out)
	require.Contains(t, out.String(), table, "the damaged file is named")
	require.Contains(t, out.String(), "the log failed")
}

// health returns the status of a page of the admin server, 0 if there is none.
func health(admin, path string) int {
	answer, err := http.Get("http://" + admin + path)
	if err != nil {
		return 0
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}
