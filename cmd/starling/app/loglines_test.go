package app

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/version"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// requirePrivate requires that nobody but the owner may do anything with what a
// process has put into a directory.
func requirePrivate(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s is %v", e.Name(), info.Mode())
	}
}

// At info level every line is JSON, the first one states which build it is, and no
// coordinate and no token is in any, whether a call is right or wrong.
func TestNothingSecretIsLogged(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dev = true
	cfg.Partitions, cfg.Local.Directory, cfg.Log.Format = 2, t.TempDir()+"/log", "json"
	require.NoError(t, os.MkdirAll(cfg.Local.Directory, 0o755)) // by somebody who did not think of others
	addrs, err := freeport.Addrs(4)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], addrs[1], addrs[2], addrs[3]
	out := &lineBuffer{}
	logger, err := NewLogger(cfg.Log, out)
	require.NoError(t, err)
	a, err := New(cfg, AllRoles(), logger)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case err := <-ended:
		require.FailNow(t, "it does not serve", "%v", err)
	case <-time.After(2 * time.Minute):
		require.FailNow(t, "not ready")
	}

	const token = "eyJhbGciOiJub25lIn0.c2VjcmV0.signature"
	calls := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	for _, addr := range addrs[:2] {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		for _, lat := range []float64{51.234567, 91.234567} { // the second breaks a rule
			fix := &starlingv1.Fix{DeviceTimeMs: time.Now().UnixMilli(), Latitude: lat, Longitude: 8.765432}
			_, _ = starlingv1.NewIngestServiceClient(conn).SendReport(calls, &starlingv1.SendReportRequest{Report: &starlingv1.Report{VehicleId: "v", SessionId: 1, Sequence: 1, Fixes: []*starlingv1.Fix{fix}}})
			_, _ = starlingv1.NewFleetServiceClient(conn).SearchNearest(calls, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: lat, Longitude: 8.765432}})
		}
	}
	for _, path := range []string{"/v1/vehicles:searchNearest?place.latitude=51.234567&place.longitude=8.765432", "/v1/vehicles/v?latitude=51.234567"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addrs[2]+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, answer.Body)
		require.NoError(t, answer.Body.Close())
	}
	cancel()
	require.NoError(t, <-ended)
	requirePrivate(t, cfg.Local.Directory)

	lines := out.lines()
	require.Greater(t, len(lines), 3)
	for i, text := range lines {
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		if i == 0 {
			require.Equal(t, "starting", line["msg"])
			require.Equal(t, version.Read().Version, line["version"])
		}
		for _, secret := range []string{token, "1.234567", "8.765432", "eyJ"} {
			require.False(t, strings.Contains(text, secret), text)
		}
	}
}
