package app_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/freeport"
)

// getReady asks a process whether it is ready.
func getReady(t *testing.T, admin string) (int, string) {
	t.Helper()
	answer, err := http.Get("http://" + admin + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

// A tracker on Kafka is not ready before its group has answered and its partitions
// are loaded; the same holds for `up`.
func TestATrackerIsReadyWhenItOwnsItsPartitions(t *testing.T) {
	for name, roles := range map[string][]app.Role{"tracker": {app.Tracker}, "up": app.AllRoles()} {
		t.Run(name, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
			require.NoError(t, err)
			t.Cleanup(cluster.Close)
			asked, answered := make(chan struct{}, 100), make(chan struct{})
			cluster.ControlKey(int16(kmsg.SyncGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				asked <- struct{}{}
				cluster.SleepControl(func() { <-answered })
				return nil, nil, false
			})

			cfg := app.DefaultConfig()
			cfg.Dev = true
			cfg.Partitions = 2
			cfg.Kafka.Brokers = cluster.ListenAddrs()
			cfg.Kafka.ReplicationFactor = 1
			addrs, err := freeport.Addrs(4)
			require.NoError(t, err)
			cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], addrs[1], addrs[2], addrs[3]
			a, err := app.New(cfg, roles, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-ended) }()

			select {
			case <-asked:
			case err := <-ended:
				ended <- err
				require.NoError(t, err)
			case <-time.After(time.Minute):
				require.FailNow(t, "the tracker does not join its group")
			}
			code, body := getReady(t, cfg.Server.AdminListen)
			require.Equal(t, http.StatusServiceUnavailable, code, body)
			select {
			case <-a.Ready():
				require.FailNow(t, "ready before the group has answered")
			default:
			}
			close(answered)
			require.Eventually(t, func() bool { code, body = getReady(t, cfg.Server.AdminListen); return code == http.StatusOK },
				time.Minute, 20*time.Millisecond, "%d %s", code, body)
		})
	}
}

// A process whose log refuses appends is not ready and reports why, and the health of its
// ingest server follows; that of its matcher, which only reads, does not.
func TestAProcessIsNotReadyWhileItsLogRefusesAppends(t *testing.T) {
	cfg := app.DefaultConfig()
	cfg.Dev = true
	cfg.Local.Directory = filepath.Join(t.TempDir(), "log")
	cfg.Local.LowWaterFreeBytes = 1 << 60
	addrs, err := freeport.Addrs(4)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.MatcherListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], addrs[1], addrs[2], addrs[3]
	a, err := app.New(cfg, app.AllRoles(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()

	health := func(addr string) func() healthpb.HealthCheckResponse_ServingStatus {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return func() healthpb.HealthCheckResponse_ServingStatus {
			soon, stop := context.WithTimeout(ctx, time.Minute)
			defer stop()
			answer, err := healthpb.NewHealthClient(conn).Check(soon, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
			require.NoError(t, err)
			return answer.Status
		}
	}
	ingest, matcher := health(addrs[0]), health(addrs[1])
	require.Eventually(t, func() bool { return matcher() == healthpb.HealthCheckResponse_SERVING }, time.Minute, 20*time.Millisecond)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, ingest())
	code, body := getReady(t, cfg.Server.AdminListen)
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "ingest: the log takes no appends: log is full")
	alarmtest.Reads(t, body, "not ready: ")
	select {
	case <-a.Ready():
		require.FailNow(t, "ready without a log that takes appends")
	default:
	}
}

// Brokers that can't be reached any more make ingest unready, although nobody
// reports.
func TestIngestIsNotReadyWithoutBrokers(t *testing.T) {
	t.Parallel() // it waits for the next look at the log
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg := app.DefaultConfig()
	cfg.Dev = true
	cfg.Partitions = 2
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Kafka.ReplicationFactor = 1
	addrs, err := freeport.Addrs(2)
	require.NoError(t, err)
	cfg.Server.IngestListen, cfg.Server.JSONListen, cfg.Server.AdminListen = addrs[0], "", addrs[1]
	a, err := app.New(cfg, []app.Role{app.Ingest}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()
	var code int
	var body string
	require.Eventually(t, func() bool { code, body = getReady(t, cfg.Server.AdminListen); return code == http.StatusOK },
		time.Minute, 20*time.Millisecond, "%s", body)
	cluster.Close()
	require.Eventually(t, func() bool {
		code, body = getReady(t, cfg.Server.AdminListen)
		return code == http.StatusServiceUnavailable
	},
		time.Minute, 50*time.Millisecond, "%s", body)
	require.Contains(t, body, "ingest: the log takes no appends: ")
}
