package rpcserver_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// BenchmarkUnary is what limits, identity and metrics add to a call: the CPU time
// of client and server together, which a busy machine disturbs less than the time
// on the clock, with gRPC's own server for comparison.
func BenchmarkUnary(b *testing.B) {
	vehicle := &starlingv1.Vehicle{Name: "vehicles/taxi-1"}
	f := &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) { return vehicle, nil }}
	for name, serve := range map[string]func(context.Context, net.Listener) error{
		"grpc": func(ctx context.Context, l net.Listener) error {
			s := grpc.NewServer()
			starlingv1.RegisterFleetServiceServer(s, f)
			context.AfterFunc(ctx, s.Stop)
			return s.Serve(l)
		},
		"rpcserver": func(ctx context.Context, l net.Listener) error {
			group, err := rpcserver.NewGroup(rpcserver.DefaultConfig(), rpcserver.Deps{Guard: auth.Open(), Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
			require.NoError(b, err)
			server := group.New(rpcserver.Role{Name: "fleet", Register: func(reg grpc.ServiceRegistrar) { starlingv1.RegisterFleetServiceServer(reg, f) }})
			return server.Serve(ctx, []net.Listener{l}, nil, func() time.Duration { return 0 })
		},
	} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, l) }()
			defer func() { cancel(); <-ended }()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(b, err)
			defer func() { _ = conn.Close() }()
			client := starlingv1.NewFleetServiceClient(conn)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime(b)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := client.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: vehicle.GetName()}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
