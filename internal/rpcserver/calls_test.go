package rpcserver_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Messages are counted under the library's names, once each: a call that fails has
// received its message and sent none, and every method shows before its first call.
func TestMessagesAreCountedByMethod(t *testing.T) {
	const sends = 3
	r := start(t, &fleet{
		get: func(_ context.Context, name string) (*starlingv1.Vehicle, error) {
			if name == "vehicles/none" {
				return nil, status.Error(codes.NotFound, "none")
			}
			return &starlingv1.Vehicle{Name: name}, nil
		},
		watch: func(s grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
			for range sends {
				if err := s.Send(&starlingv1.WatchVehicleResponse{}); err != nil {
					return err
				}
			}
			return nil
		},
	}, time.Second)
	count := func(which, kind, method string) float64 {
		return metric(t, r.registry, "grpc_server_msg_"+which+"_total", "grpc_type", kind, "grpc_method", method)
	}
	require.Zero(t, count("received", "unary", "GetVehicle"))
	for _, name := range []string{"vehicles/a", "vehicles/none"} {
		_, err := r.client.GetVehicle(within(t), &starlingv1.GetVehicleRequest{Name: name})
		require.Equal(t, name == "vehicles/none", err != nil)
	}
	require.Equal(t, 2.0, count("received", "unary", "GetVehicle"))
	require.Equal(t, 1.0, count("sent", "unary", "GetVehicle"))

	stream, err := r.client.WatchVehicle(within(t), &starlingv1.WatchVehicleRequest{})
	require.NoError(t, err)
	for err == nil {
		_, err = stream.Recv()
	}
	require.True(t, errors.Is(err, io.EOF), "%v", err)
	require.Equal(t, 1.0, count("received", "server_stream", "WatchVehicle"))
	require.Equal(t, float64(sends), count("sent", "server_stream", "WatchVehicle"))

	// Calls and their messages are counted for the same methods.
	families, err := r.registry.Gather()
	require.NoError(t, err)
	shown := map[string]int{}
	for _, f := range families {
		shown[f.GetName()] = len(f.GetMetric())
	}
	require.Equal(t, shown["grpc_server_started_total"], shown["grpc_server_msg_received_total"])
	require.Equal(t, shown["grpc_server_started_total"], shown["grpc_server_msg_sent_total"])
}
