package cli

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// answeringFleet answers with what a test wants to see printed.
type answeringFleet struct {
	starlingv1.UnimplementedFleetServiceServer
	watched  []*starlingv1.WatchVehicleRequest
	searched *starlingv1.SearchNearestRequest
}

func (f *answeringFleet) CountVehicles(_ context.Context, req *starlingv1.CountVehiclesRequest) (*starlingv1.CountVehiclesResponse, error) {
	if req.PageToken == "" {
		return &starlingv1.CountVehiclesResponse{NextPageToken: "x", Cells: []*starlingv1.CellCount{{H3Cell: "871e15b75ffffff", TotalCount: 3, FreeCount: 2, OnRideCount: 1}}}, nil
	}
	return &starlingv1.CountVehiclesResponse{
		Cells:           []*starlingv1.CellCount{{H3Cell: "871e15b77ffffff", TotalCount: req.Selection.Resolution}},
		StalePartitions: []*starlingv1.StalePartition{{Partition: 3, Behind: durationpb.New(7e9)}},
	}, nil
}

func (f *answeringFleet) WatchVehicleCounts(_ *starlingv1.WatchVehicleCountsRequest, out grpc.ServerStreamingServer[starlingv1.WatchVehicleCountsResponse]) error {
	return out.Send(&starlingv1.WatchVehicleCountsResponse{Snapshot: true, Cells: []*starlingv1.CellCount{{H3Cell: "871e15b75ffffff", TotalCount: 5}}})
}

// WatchVehicle breaks off once.
func (f *answeringFleet) WatchVehicle(req *starlingv1.WatchVehicleRequest, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	f.watched = append(f.watched, req)
	message := &starlingv1.WatchVehicleResponse{
		Vehicle:  &starlingv1.Vehicle{Name: req.Name, DeviceTime: timestamppb.Now(), Age: durationpb.New(62e9)},
		Playback: &starlingv1.Playback{Age: durationpb.New(61e9), BufferedFixes: 17, SkippedFixes: 4}, ResumeToken: "here",
	}
	if err := out.Send(message); err != nil || len(f.watched) > 1 {
		return err
	}
	return status.Error(codes.Unavailable, "gone for a moment")
}

func answer(t *testing.T) (*answeringFleet, string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, fleet := grpc.NewServer(), &answeringFleet{}
	starlingv1.RegisterFleetServiceServer(server, fleet)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return fleet, listener.Addr().String()
}

func TestSupplyPrintsAllPages(t *testing.T) {
	_, addr := answer(t)
	got := runCLI(t, t.Context(), "", "supply", "--matcher", addr, "--resolution", "8")
	require.Equal(t, exitOK, got.code, got.err)
	lines := strings.Split(got.out, "\n")
	require.Equal(t, []string{"CELL", "VEHICLES", "DISPATCHABLE", "FREE", "BUSY", "RESERVED", "ON", "RIDE", "OFFLINE", "UNSTATED"}, strings.Fields(lines[0]))
	require.Equal(t, []string{"871e15b75ffffff", "3", "0", "2", "0", "0", "1", "0", "0"}, strings.Fields(lines[1]))
	require.Equal(t, []string{"871e15b77ffffff", "8", "0", "0", "0", "0", "0", "0", "0"}, strings.Fields(lines[2]))
	require.Contains(t, lines[3], "Careful: 1 partitions are behind")

	got = runCLI(t, t.Context(), "", "supply", "--matcher", addr, "--json")
	require.Contains(t, got.out, `"h3Cell":"871e15b77ffffff"`)
	got = runCLI(t, t.Context(), "", "supply", "--matcher", addr, "--watch")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "871e15b75ffffff")
	require.Equal(t, exitUsage, runCLI(t, t.Context(), "", "supply", "--available", "maybe").code)
}

func TestWatchGoesOnWhereItBrokeOff(t *testing.T) {
	fleet, addr := answer(t)
	got := runCLI(t, t.Context(), "", "watch", "car-1", "--matcher", addr, "--playback-delay", "61s", "--reconnect", "--count", "2")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "played out 1m1s late, 17 fixes to come, 4 left out")
	require.Len(t, fleet.watched, 2)
	require.Empty(t, fleet.watched[0].ResumeToken)
	require.Equal(t, "here", fleet.watched[1].ResumeToken)
	require.Equal(t, "1m1s", fleet.watched[1].PlaybackDelay.AsDuration().String())
	got = runCLI(t, t.Context(), "", "watch", "car-1", "--matcher", "127.0.0.1:1")
	require.Equal(t, exitFailed, got.code)
}
