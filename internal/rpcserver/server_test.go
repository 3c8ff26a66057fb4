package rpcserver_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// patience bounds waits for what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// fleet is a service that a test scripts.
type fleet struct {
	starlingv1.UnimplementedFleetServiceServer
	get   func(ctx context.Context, name string) (*starlingv1.Vehicle, error)
	list  func(context.Context) (*starlingv1.ListVehiclesResponse, error)
	watch func(grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error
}

func (f *fleet) GetVehicle(ctx context.Context, r *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	return f.get(ctx, r.GetName())
}

func (f *fleet) ListVehicles(ctx context.Context, _ *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	return f.list(ctx)
}

func (f *fleet) WatchVehicle(_ *starlingv1.WatchVehicleRequest, s grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	return f.watch(s)
}

// running is a server that serves a fleet.
type running struct {
	client   starlingv1.FleetServiceClient
	conn     *grpc.ClientConn
	addr     string
	registry *prometheus.Registry
	log      *logBuffer
	ready    atomic.Bool
	stop     context.CancelFunc
	ended    chan error
}

// logBuffer may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, f *fleet, drain time.Duration, change ...func(*rpcserver.Config)) *running {
	t.Helper()
	return startGuarded(t, auth.Open(), f, drain, change...)
}

func startGuarded(t *testing.T, guard *auth.Guard, f *fleet, drain time.Duration, change ...func(*rpcserver.Config)) *running {
	t.Helper()
	cfg := rpcserver.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	r := &running{registry: prometheus.NewRegistry(), log: &logBuffer{}, ended: make(chan error, 1)}
	r.ready.Store(true)
	group, err := rpcserver.NewGroup(cfg, rpcserver.Deps{Guard: guard, Registerer: r.registry, Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	require.NoError(t, err)
	server := group.New(rpcserver.Role{
		Name: "fleet", Ready: r.ready.Load, Large: []string{listVehicles},
		Register: func(reg grpc.ServiceRegistrar) { starlingv1.RegisterFleetServiceServer(reg, f) },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- server.Serve(ctx, []net.Listener{l}, nil, func() time.Duration { return drain }) }()
	r.conn, err = grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	r.client = starlingv1.NewFleetServiceClient(r.conn)
	t.Cleanup(func() {
		cancel()
		_ = r.conn.Close()
		select {
		case err := <-r.ended:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
	})
	return r
}

// metric sums a counter or gauge over the labels that contain want.
func metric(t *testing.T, reg *prometheus.Registry, name string, want ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			matches := true
			for i := 0; i < len(want); i += 2 {
				matches = matches && labels[want[i]] == want[i+1]
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A panic costs its own call only; it is counted and logged once, with the
// stack of where it was.
func TestAPanicIsInternal(t *testing.T) {
	f := &fleet{
		get: func(_ context.Context, name string) (*starlingv1.Vehicle, error) {
			if name == "bad" {
				thisIsWhereItPanics()
			}
			return &starlingv1.Vehicle{Name: name}, nil
		},
		watch: func(grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error { panic("in a stream") },
		list: func(context.Context) (*starlingv1.ListVehiclesResponse, error) {
			panic(&rpcserver.Panic{Value: "x", Stack: []byte("elsewhere"), Status: status.Error(codes.Unavailable, "the outcome is open")})
		},
	}
	r := start(t, f, time.Second)
	_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{Name: "bad"})
	require.Equal(t, codes.Internal, status.Code(err))
	require.Equal(t, "PANIC", rpcstatus.ReasonOf(err))
	require.NotContains(t, err.Error(), "broken", "callers learn nothing of the inside")
	require.Equal(t, 1, strings.Count(r.log.String(), "handler panicked"))
	require.Contains(t, r.log.String(), "thisIsWhereItPanics")

	w, err := r.client.WatchVehicle(within(t), &starlingv1.WatchVehicleRequest{})
	require.NoError(t, err)
	_, err = w.Recv()
	require.Equal(t, codes.Internal, status.Code(err))

	_, err = r.client.ListVehicles(within(t), &starlingv1.ListVehiclesRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, r.log.String(), "elsewhere")

	_, err = r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{Name: "good"})
	require.NoError(t, err)
	const service = "/starling.v1.FleetService/"
	for method, n := range map[string]float64{"GetVehicle": 1, "WatchVehicle": 1, "ListVehicles": 1, "SearchArea": 0} {
		require.Equal(t, n, metric(t, r.registry, "starling_rpc_panics_total", "method", service+method), method)
	}
	alarmtest.Raised(t, r.registry, "starling_rpc_panics_total")
	require.Equal(t, 1.0, metric(t, r.registry, "grpc_server_handled_total", "grpc_method", "GetVehicle", "grpc_code", "Internal"))
	require.Equal(t, 1.0, metric(t, r.registry, "grpc_server_handled_total", "grpc_method", "GetVehicle", "grpc_code", "OK"))
}

func thisIsWhereItPanics() { panic("broken") }

func TestHealthFollowsReadiness(t *testing.T) {
	release := make(chan struct{})
	f := &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		<-release
		return &starlingv1.Vehicle{}, nil
	}}
	r := start(t, f, patience)
	checks := healthpb.NewHealthClient(r.conn)
	await := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "starling.v1.FleetService"} {
			require.Eventually(t, func() bool {
				got, err := checks.Check(within(t), &healthpb.HealthCheckRequest{Service: service})
				require.NoError(t, err)
				return got.GetStatus() == want
			}, patience, 5*time.Millisecond, "%q %v", service, want)
		}
	}
	await(healthpb.HealthCheckResponse_SERVING)
	r.ready.Store(false)
	await(healthpb.HealthCheckResponse_NOT_SERVING)
	r.ready.Store(true)
	await(healthpb.HealthCheckResponse_SERVING)
	_, err := checks.Check(within(t), &healthpb.HealthCheckRequest{Service: "starling.v1.NoSuchService"})
	require.Equal(t, codes.NotFound, status.Code(err))

	// While the server drains, those who watch learn that it does not serve.
	watch, err := checks.Watch(within(t), &healthpb.HealthCheckRequest{Service: "starling.v1.FleetService"})
	require.NoError(t, err)
	is, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, is.GetStatus())
	called := make(chan error, 1)
	go func() {
		_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{})
		called <- err
	}()
	require.Eventually(t, func() bool {
		return metric(t, r.registry, "grpc_server_started_total", "grpc_method", "GetVehicle") == 1
	}, patience, time.Millisecond)
	r.stop()
	is, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, is.GetStatus())
	close(release)
	require.NoError(t, <-called, "an open call may end")
	_ = watch.CloseSend()
}

func TestCallsThatDoNotEndAreCutOff(t *testing.T) {
	f := &fleet{get: func(ctx context.Context, _ string) (*starlingv1.Vehicle, error) { <-ctx.Done(); return nil, ctx.Err() }}
	r := start(t, f, 50*time.Millisecond)
	called := make(chan error, 1)
	go func() {
		_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{})
		called <- err
	}()
	require.Eventually(t, func() bool {
		return metric(t, r.registry, "grpc_server_started_total", "grpc_method", "GetVehicle") == 1
	}, patience, time.Millisecond)
	r.stop()
	require.Equal(t, codes.Unavailable, status.Code(<-called))
	require.Contains(t, r.log.String(), "cut off")
}

func TestConfigNamesEveryFault(t *testing.T) {
	require.NoError(t, rpcserver.DefaultConfig().Validate())
	err := rpcserver.Config{}.Validate()
	for _, field := range []string{"handshake_timeout", "max_header_bytes", "max_conn_streams", "ping_interval", "min_ping"} {
		require.ErrorContains(t, err, field+" is 0")
	}
}
