package rpcserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Clients may compress. What counts for the bound of a message is its size when it
// is unpacked, so that few bytes can't become many.
func TestCompressedRequestsAreTaken(t *testing.T) {
	r := start(t, &fleet{get: func(_ context.Context, name string) (*starlingv1.Vehicle, error) {
		return &starlingv1.Vehicle{Name: name}, nil
	}}, time.Second)
	zipped := grpc.UseCompressor(gzip.Name)
	v, err := r.client.GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/a"}, zipped)
	require.NoError(t, err)
	require.Equal(t, "vehicles/a", v.Name)

	const defaultMaxBytes = 4 << 20 // gRPC's, which the role has not changed
	_, err = r.client.GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: strings.Repeat("a", defaultMaxBytes+1)}, zipped)
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	_, err = r.client.GetVehicle(t.Context(), &starlingv1.GetVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
}
