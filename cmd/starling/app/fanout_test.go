package app_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A fan-out runs without a log. While no matcher answers it is not ready, reports
// so on both servers, and stops when it is asked to.
func TestAFanoutNeedsNoLog(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Dev = true
	cfg.Local.Directory = "/nowhere/at/all"
	cfg.Matcher.Regions = []string{"west=841e149ffffffff", "east=rest"}
	addrs, err := freeport.Addrs(4)
	require.NoError(t, err)
	cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], addrs[1], addrs[2]

	_, err = app.New(cfg, []app.Role{app.Fanout}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "fanout: replicas: region west has none")
	cfg.Fanout.Replicas = []string{"west=" + addrs[3], "east=" + addrs[3]} // where nobody listens
	_, err = app.New(cfg, []app.Role{app.Fanout, app.Ingest}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "a fan-out is a process of its own")

	a, err := app.New(cfg, []app.Role{app.Fanout}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()

	conn, err := grpc.NewClient(cfg.Server.MatcherListen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	soon, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	_, err = starlingv1.NewFleetServiceClient(conn).SearchNearest(soon, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}}, grpc.WaitForReady(true))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, err.Error(), "region east cannot be asked")
	for _, url := range []string{"http://" + cfg.Server.JSONListen + "/v1/vehicles", "http://" + cfg.Server.AdminListen + "/readyz"} {
		answer, err := http.Get(url)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode, "%s", body)
	}
	select {
	case <-a.Ready():
		require.Fail(t, "ready without a matcher")
	default:
	}
}
