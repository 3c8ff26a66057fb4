package corruption

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/starling-fleet/starling/loadtest/generate"
	"github.com/starling-fleet/starling/loadtest/process"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

const patience = 2 * time.Minute

// counter counts what a process writes.
type counter struct{ bytes atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.bytes.Add(int64(len(p))); return len(p), nil }

// start starts `starling up` on a log, and does not wait for it.
func start(t *testing.T, command []string, dir string, out *counter) (*process.Process, process.Addresses) {
	t.Helper()
	addrs, err := process.FreeAddresses()
	require.NoError(t, err)
	p := process.New(process.Spec{Name: "starling", Admin: addrs.Admin, Output: out, Command: slices.Concat(command,
		[]string{"up", "--log-level", "warn", "--local-directory", dir, "--server-drain-timeout", "5s"}, addrs.Args())})
	require.NoError(t, p.Start())
	t.Cleanup(p.Kill)
	return p, addrs
}

func ready(t *testing.T, p *process.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := p.WaitReady(ctx)
	require.NoError(t, err)
}

// load sends for a while, or until the server is gone, and returns the fixes that
// were acknowledged.
func load(t *testing.T, addrs process.Addresses, d time.Duration) int64 {
	t.Helper()
	conn, err := grpc.NewClient(addrs.Ingest, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	o := generate.DefaultOptions()
	o.Ingest, o.Watched = []grpc.ClientConnInterface{conn}, 0
	o.Streams, o.VehiclesPerStream, o.FixesPerReport, o.FixesPerSecond = 2, 50, 5, 3000
	o.Warmup, o.Duration = 0, d
	r, err := generate.Run(t.Context(), o)
	if err != nil {
		t.Logf("the load ended: %v", err)
	}
	return r.AcknowledgedFixes
}

// killedUnderLoad returns a log whose process was killed twice.
func killedUnderLoad(t *testing.T, command []string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	for range 2 { // the second start writes what the first has left as tables
		p, addrs := start(t, command, dir, &counter{})
		ready(t, p)
		require.Positive(t, load(t, addrs, 3*time.Second))
		p.Kill()
	}
	return dir
}

// refuses waits for a process to end by itself, which it must do without ever
// having been ready.
func refuses(t *testing.T, p *process.Process) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case <-p.Ended():
			require.True(t, p.EndedByItself())
			return p.LastOutput()
		case <-ctx.Done():
			require.FailNow(t, "the process neither refuses nor ends", p.LastOutput())
		case <-time.After(20 * time.Millisecond):
			require.False(t, p.Ready(ctx), "it is ready before the account is whole")
		}
	}
}

// newest returns the newest file that matches and holds something.
func newest(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	sort.Strings(names)
	for _, name := range slices.Backward(names) {
		if info, err := os.Stat(name); err == nil && info.Size() > 4096 {
			return name
		}
	}
	require.FailNow(t, "there is no such file", pattern)
	return ""
}

// TestDamagedLogIsRefused kills a process under load, damages what it leaves, and
// starts again: never ready, exit with the names of what is missing. The log as it
// was left opens.
func TestDamagedLogIsRefused(t *testing.T) {
	command := starlingtest.Command(t)
	left := killedUnderLoad(t, command)
	// The socket that a killed process leaves is not part of the log, and CopyFS
	// copies none.
	require.NoError(t, os.Remove(filepath.Join(left, "control")))
	flip := func(share float64) func(b []byte) []byte {
		return func(b []byte) []byte { b[int(float64(len(b))*share)] ^= 1; return b }
	}
	damages := map[string]func(b []byte) []byte{
		"flip": flip(0.3),
		"zero": func(b []byte) []byte { clear(b[len(b)/2 : min(len(b), len(b)/2+4096)]); return b },
		"cut":  func(b []byte) []byte { return b[:len(b)/2] },
	}
	if os.Getenv("STARLING_LONG") != "" {
		for i := range 20 {
			damages[fmt.Sprint("flip at ", i, "/20")] = flip(float64(i) / 20)
		}
	}
	spoil := func(name string, do func(dir string)) {
		dir := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.CopyFS(dir, os.DirFS(left)))
		do(dir)
		p, _ := start(t, command, dir, &counter{})
		output := refuses(t, p)
		require.Contains(t, output, "starling log repair", name)
		require.NoError(t, os.RemoveAll(dir))
	}
	for name, do := range damages {
		spoil(name, func(dir string) {
			file := newest(t, dir, "records/*.log")
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, do(data), 0o644))
		})
	}
	for _, part := range []string{"records", "state", "synced-ends"} {
		spoil("without "+part, func(dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, part))) })
	}
	spoil("without a table", func(dir string) { require.NoError(t, os.Remove(newest(t, dir, "records/*.sst"))) })
	p, _ := start(t, command, left, &counter{})
	ready(t, p)
	require.NoError(t, p.StopWithin(patience))
}

// TestIdleConnections opens more connections than the process has descriptors:
// reports are acknowledged all the while, and the process logs little.
func TestIdleConnections(t *testing.T) {
	command := slices.Concat([]string{"/bin/sh", "-c", `ulimit -n 300; exec "$@"`, "sh"}, starlingtest.Command(t))
	out := &counter{}
	p, addrs := start(t, command, filepath.Join(t.TempDir(), "log"), out)
	ready(t, p)
	var idle []net.Conn
	for range 350 {
		conn, err := net.Dial("tcp", addrs.Ingest)
		require.NoError(t, err)
		idle = append(idle, conn)
	}
	defer func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}()
	require.Positive(t, load(t, addrs, 4*time.Second), "a client that comes after the idle ones is served")
	require.True(t, p.Ready(t.Context()))
	require.False(t, p.EndedByItself())
	require.Less(t, out.bytes.Load(), int64(64<<10), "the log is bounded")
	require.NoError(t, p.StopWithin(patience))
}
