package app_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A fix that ingest has acknowledged is in Redis soon, and again after a flush.
func TestPositionsAreKeptInRedis(t *testing.T) {
	server := redistest.Start(t)
	cfg := app.DefaultConfig()
	cfg.Dev, cfg.Partitions, cfg.Local.Directory = true, 2, t.TempDir()+"/log"
	cfg.Server.JSONListen, cfg.Server.AdminListen = "", ""
	cfg.Redis.Addrs, cfg.Redis.Positions = []string{server.Addr()}, true
	addrs, err := freeport.Addrs(2)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.MatcherListen = addrs[0], addrs[1]
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()

	conn, err := grpc.NewClient(addrs[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = starlingv1.NewIngestServiceClient(conn).SendReport(ctx, &starlingv1.SendReportRequest{Report: &starlingv1.Report{
		VehicleId: "car-7", SessionId: 1, Sequence: 1, Availability: starlingv1.Availability_AVAILABILITY_FREE,
		Fixes: []*starlingv1.Fix{{DeviceTimeMs: time.Now().UnixMilli(), Latitude: 48.2, Longitude: 16.3}},
	}}, grpc.WaitForReady(true))
	require.NoError(t, err)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	for range 2 {
		require.Eventually(t, func() bool {
			hash, err := client.HGetAll(ctx, "starling:vehicle:car-7").Result()
			return err == nil && hash["lat"] == "48.2000000" && hash["lon"] == "16.3000000" && hash["availability"] == "FREE" && client.ZScore(ctx, "starling:fleet", "car-7").Err() == nil
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, client.FlushAll(ctx).Err())
	}
}
