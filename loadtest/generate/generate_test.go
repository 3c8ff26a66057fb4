package generate_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/loadtest/generate"
)

func options(t *testing.T, s *fleettest.Server) generate.Options {
	t.Helper()
	conn, stop, err := s.Start()
	require.NoError(t, err)
	t.Cleanup(stop)
	o := generate.DefaultOptions()
	o.Ingest, o.Fleet = []grpc.ClientConnInterface{conn}, conn
	o.Streams, o.VehiclesPerStream, o.InFlight, o.Watched = 3, 10, 20, 5
	return o
}

func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{ConsumeDelay: 70 * time.Millisecond}
		o := options(t, s)
		o.FixesPerSecond, o.FixesPerReport = 3000, 5
		calls := 0
		o.Progress = func(generate.Progress) { calls++ }
		r, err := generate.Run(t.Context(), o)
		require.NoError(t, err)
		require.InDelta(t, 3000, r.FixesPerSecond, 30)
		require.Equal(t, 10*time.Second, r.Measured)
		require.InDelta(t, 12, calls, 1)
		require.Equal(t, r.SentFixes, r.AcknowledgedFixes)
		require.Zero(t, r.RefusedFixes+r.UnknownFixes+r.BrokenStreams)
		require.Zero(t, r.Unsearchable)
		require.Greater(t, r.Searchable.Count, int64(1000))
		require.GreaterOrEqual(t, r.Searchable.P50, 70*time.Millisecond)
		require.LessOrEqual(t, r.Searchable.P99, 90*time.Millisecond, "the model looks every 10 ms")
		require.Positive(t, r.AckLatency.Count)

		var fixes int64
		last := map[string]int64{}
		for _, x := range s.Reports {
			require.Len(t, x.Report.GetFixes(), 5)
			for _, f := range x.Report.GetFixes() {
				fixes++
				require.True(t, last[x.Report.GetVehicleId()] == 0 || f.GetDeviceTimeMs() == last[x.Report.GetVehicleId()]+1000)
				last[x.Report.GetVehicleId()] = f.GetDeviceTimeMs()
			}
		}
		require.Equal(t, r.AcknowledgedFixes, fixes)
		require.Len(t, last, 30)
	})
}

func TestSaturationWithLiveTimes(t *testing.T) {
	o := options(t, &fleettest.Server{})
	o.DeviceInterval, o.Warmup, o.Duration, o.FixesPerReport = 0, 200*time.Millisecond, 2*time.Second, 1
	r, err := generate.Run(t.Context(), o)
	require.NoError(t, err)
	require.Positive(t, r.FixesPerSecond)
	require.Equal(t, r.SentFixes, r.AcknowledgedFixes)
}

func TestReportsPerVehicleEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(t, &fleettest.Server{})
		o.ReportsPerVehicle, o.FixesPerReport, o.Warmup = 7, 2, 0
		r, err := generate.Run(t.Context(), o)
		require.NoError(t, err)
		require.EqualValues(t, 3*10*7*2, r.AcknowledgedFixes)
		require.Less(t, r.Measured, time.Second)
	})
}

func TestBrokenStreamsAreOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fleettest.Server{BreakEvery: 1000}
		o := options(t, s)
		o.FixesPerSecond, o.FixesPerReport, o.Watched = 3000, 5, 0
		r, err := generate.Run(t.Context(), o)
		require.NoError(t, err)
		require.InDelta(t, 7, r.BrokenStreams, 2)
		require.Positive(t, r.UnknownFixes)
		require.Equal(t, r.SentFixes, r.AcknowledgedFixes+r.UnknownFixes)
	})
}

// refusing is a connection to a server without the service.
type refusing struct{ grpc.ClientConnInterface }

func (refusing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no such service")
}

func TestWrongServerIsAnError(t *testing.T) {
	o := options(t, &fleettest.Server{})
	o.Ingest = []grpc.ClientConnInterface{refusing{}}
	_, err := generate.Run(t.Context(), o)
	require.ErrorContains(t, err, "stream of gen-")
	require.ErrorContains(t, err, "no such service")
}

func TestDoneContextEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(t, &fleettest.Server{})
		o.FixesPerSecond = 100
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := generate.Run(ctx, o)
		require.NoError(t, err)
		require.InDelta(t, 100, r.FixesPerSecond, 20)
		require.InDelta(t, 3, r.Measured.Seconds(), 0.1)
	})
}

func TestValidateNamesEveryFault(t *testing.T) {
	_, err := generate.Run(t.Context(), generate.Options{FixesPerSecond: -1, DeviceInterval: 1, CentreLatDeg: 90})
	for _, field := range []string{"ingest", "streams", "vehicles_per_stream", "fixes_per_report", "fixes_per_second", "duration", "in_flight", "device_interval", "vehicle_prefix", "centre_lat_deg", "radius_m"} {
		require.ErrorContains(t, err, field)
	}
}
