package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ListVehicles answers in two pages: a device without a fault, one with every
// fault, and one with a wrong clock.
func (f *answeringFleet) ListVehicles(_ context.Context, req *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	full := func(v float32) *float32 { return &v }
	good := &starlingv1.Vehicle{
		Name: "vehicles/good", FixCounts: &starlingv1.FixCounts{Accepted: 100, Duplicate: 50},
		Diagnosis: &starlingv1.DeviceDiagnosis{AccuracyScale: full(0.8), VelocityCredibility: full(1)},
	}
	bad := &starlingv1.Vehicle{
		Name: "vehicles/bad", Conflicting: true, DeviceClockAhead: durationpb.New(-2 * time.Minute), Age: durationpb.New(1234 * time.Millisecond), OdometerM: proto.Float64(1500),
		FixCounts: &starlingv1.FixCounts{Accepted: 50, Late: 20, SetAside: 20, Conflict: 10},
		Diagnosis: &starlingv1.DeviceDiagnosis{AccuracyScale: full(100), VelocityCredibility: full(0), BiasM: 80, OutlierShare: 1},
	}
	slow := &starlingv1.Vehicle{Name: "vehicles/slow", DeviceClockAhead: durationpb.New(30 * time.Second)}
	if req.PageToken == "" {
		return &starlingv1.ListVehiclesResponse{Vehicles: []*starlingv1.Vehicle{good, slow}, NextPageToken: "more"}, nil
	}
	return &starlingv1.ListVehiclesResponse{Vehicles: []*starlingv1.Vehicle{bad}}, nil
}

func (f *answeringFleet) SearchNearest(_ context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	f.searched = req
	const free = starlingv1.Availability_AVAILABILITY_FREE
	if req.Filter.Dispatchable {
		return &starlingv1.SearchNearestResponse{}, nil
	}
	return &starlingv1.SearchNearestResponse{Results: []*starlingv1.NearbyVehicle{{DistanceM: 12, Vehicle: &starlingv1.Vehicle{
		Name: "vehicles/twice", Availability: free, DerivedAvailability: free, Conflicting: true, DeviceClockAhead: durationpb.New(100 * time.Second),
	}}}}, nil
}

func TestDevicesAreReportedWorstFirst(t *testing.T) {
	_, addr := answer(t)
	got := runCLI(t, t.Context(), "", "devices", "--matcher", addr)
	require.Equal(t, exitOK, got.code, got.err)
	lines := strings.Split(got.out, "\n")
	require.Regexp(t, `^bad +6\.50 +-120\.0 s +100\.0 +0 % +80\.0 m +100\.0 % +50\.0 % +100 +1\.5 km +1\.2s +conflict`, lines[1])
	require.Regexp(t, `^slow +0\.50 +\+30\.0 s +- +- `, lines[2])
	require.Regexp(t, `^good +0\.00 `, lines[3])
	require.Equal(t, "3 of 3 vehicles.", lines[4])

	got = runCLI(t, t.Context(), "", "devices", "--matcher", addr, "--json", "--max-results", "1")
	require.Equal(t, exitOK, got.code, got.err)
	var report devicesReport
	readJSON(t, got.out, &report)
	require.Equal(t, 3, report.Vehicles)
	require.Len(t, report.Devices, 1)
	require.Equal(t, "bad", report.Devices[0].Vehicle)
	require.Equal(t, 6.5, report.Devices[0].Badness)

	require.Equal(t, exitUsage, runCLI(t, t.Context(), "", "devices", "--max-results", "-1").code)
}

// By default nearest offers only those that can take a ride.
func TestNearestPrintsWhoIsDispatchable(t *testing.T) {
	fleet, addr := answer(t)
	got := runCLI(t, t.Context(), "", "nearest", "--at", "1,2", "--matcher", addr)
	require.Equal(t, exitOK, got.code, got.err)
	require.True(t, fleet.searched.Filter.Dispatchable)
	require.Contains(t, got.out, "--all prints the others too")

	got = runCLI(t, t.Context(), "", "nearest", "--at", "1,2", "--matcher", addr, "--all")
	require.Equal(t, exitOK, got.code, got.err)
	require.Contains(t, got.out, "conflict: two devices report, not dispatchable, clock 1m40s ahead")

	got = runCLI(t, t.Context(), "", "nearest", "--at", "1,2", "--matcher", addr, "--available", "busy")
	require.Equal(t, exitOK, got.code, got.err)
	require.False(t, fleet.searched.Filter.Dispatchable)
	require.Equal(t, []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_BUSY}, fleet.searched.Filter.Availabilities)
}
