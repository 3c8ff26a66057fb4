package cli

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// A process under load is backed up by the command; the restored log holds every
// report that was acknowledged before, and serves in a raised epoch. The directory's
// path is longer than a socket's address may be.
func TestLogBackupAndRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 30), "log")
	cfg := app.DefaultConfig()
	cfg.Dev, cfg.Partitions, cfg.Local.Directory = true, 2, dir
	addrs, err := freeport.Addrs(3)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], addrs[1], "", addrs[2]
	process, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- process.Run(ctx) }()
	select {
	case <-process.Ready():
	case err := <-ended:
		require.FailNow(t, "it does not serve", "%v", err)
	case <-time.After(2 * time.Minute):
		require.FailNow(t, "not ready")
	}

	conn, err := grpc.NewClient(addrs[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	var acknowledged atomic.Int64 // sequence numbers up to this one
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := int64(1); ctx.Err() == nil; n++ {
			fix := &starlingv1.Fix{DeviceTimeMs: time.Now().UnixMilli(), Latitude: 48, Longitude: 16}
			if _, err := starlingv1.NewIngestServiceClient(conn).SendReport(ctx, &starlingv1.SendReportRequest{Report: &starlingv1.Report{VehicleId: "v", SessionId: 1, Sequence: n, Fixes: []*starlingv1.Fix{fix}}}); err != nil {
				return
			}
			acknowledged.Store(n)
		}
	}()
	waitFor := func(n int64) {
		t.Helper()
		require.Eventually(t, func() bool { return acknowledged.Load() >= n }, time.Minute, time.Millisecond)
	}
	waitFor(20)
	before := acknowledged.Load()
	to, restored := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	code, out, errOut := runLog(t, "backup", "--data", dir, "--to", to)
	require.Zero(t, code, errOut)
	require.Contains(t, out, "everything acknowledged before")
	waitFor(acknowledged.Load() + 5)
	code, _, errOut = runLog(t, "backup", "--data", dir, "--to", to)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, "the target is there already")
	cancel()
	require.NoError(t, <-ended)
	<-sent
	code, _, errOut = runLog(t, "backup", "--data", dir, "--to", to+"2")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errOut, "no process that serves this log can be reached")

	code, out, errOut = runLog(t, "restore", "--from", to, "--data", restored)
	require.Zero(t, code, errOut)
	require.Contains(t, out, "in epoch 2")
	for _, wrong := range [][]string{{"restore", "--from", to, "--data", restored}, {"restore", "--from", dir, "--data", restored + "2"}, {"restore", "--from", to}, {"backup", "--data", dir}} {
		code, _, errOut = runLog(t, wrong...)
		require.Equal(t, exitUsage, code, errOut)
	}
	require.Equal(t, before, sequencesIn(t, restored, before))
}

// sequencesIn returns how many of the sequence numbers from 1 to n a log holds.
func sequencesIn(t *testing.T, dir string, n int64) (found int64) {
	t.Helper()
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Partitions = dir, 2
	l, err := locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer l.Close()
	require.Equal(t, int64(2), l.Epoch())
	bounds, err := l.Bounds(t.Context(), topics.Locations)
	require.NoError(t, err)
	seen := map[int64]bool{}
	for p, b := range bounds {
		if b.End == 0 {
			continue
		}
		r, err := l.NewReader(t.Context(), topics.Locations, map[int32]int64{int32(p): 0})
		require.NoError(t, err)
		defer r.Close()
		for next := int64(0); next < b.End; {
			batch, err := r.Poll(t.Context())
			require.NoError(t, err)
			for _, record := range batch.Records {
				next = record.Offset + 1
				var location starlingv1.LocationRecord
				require.NoError(t, proto.Unmarshal(record.Value, &location), fmt.Sprint(record.Offset))
				if report := location.GetReport(); report != nil {
					seen[report.GetSequence()] = true
				}
			}
		}
	}
	for s := range n {
		if seen[s+1] {
			found++
		}
	}
	return found
}
