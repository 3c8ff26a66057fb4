package overload_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/loadtest/overload"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// small loads for ten seconds with bounds that a slow and shared machine
// under the race detector keeps; the command's are the promise.
func small(t *testing.T) overload.Options {
	o := overload.DefaultOptions()
	o.Starling, o.WorkDir = starlingtest.Command(t), t.TempDir()
	o.Calibration, o.Duration = time.Second, 10*time.Second
	o.StreamsPerLoad, o.VehiclesPerStream, o.InFlight = 2, 4, 128
	o.IdleStreams, o.UnreadStreams, o.GarbageSenders = 100, 2, 1
	o.HonestVehicles, o.ServerBytes = 20, 2<<20
	o.MaxHonestP99, o.MaxSearchP99 = 30*time.Second, 20*time.Second
	o.Progress = func(s string) { t.Log(s) }
	return o
}

func TestOverloadIsSurvived(t *testing.T) {
	r, err := overload.Run(t.Context(), small(t))
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.Empty(t, r.Faults)
	require.Greater(t, r.Account.Acknowledged, int64(0))
	require.Equal(t, int64(100), r.IdleServed)
}

func TestBoundsThatDoNotHoldAreNamed(t *testing.T) {
	o := small(t)
	o.Duration, o.MaxHonestP99, o.MaxSearchP99 = time.Second, 1, 1
	r, err := overload.Run(t.Context(), o)
	require.NoError(t, err)
	require.NotEmpty(t, r.Misses())
	// A busy machine may add one in so short a time.
	require.GreaterOrEqual(t, len(r.Faults), 2)
	require.Contains(t, r.Faults[0], "honest reports were acknowledged in")
	require.Contains(t, r.Faults[1], "searches took")
}

func TestServerThatDoesNotStartIsAnError(t *testing.T) {
	o := overload.DefaultOptions()
	o.Starling, o.WorkDir = []string{"/bin/false"}, t.TempDir()
	_, err := overload.Run(t.Context(), o)
	require.ErrorContains(t, err, "starling ended before it served")
}

func TestValidateNamesEveryFault(t *testing.T) {
	_, err := overload.Run(t.Context(), overload.Options{IdleStreams: -1, UnreadStreams: -1, GarbageSenders: -1})
	for _, field := range []string{
		"starling", "calibration", "duration", "factor", "streams_per_load", "vehicles_per_stream", "fixes_per_report", "in_flight",
		"idle_streams", "unread_streams", "garbage_senders", "honest_vehicles", "honest_period", "search_every", "server_bytes",
		"max_honest_p99", "max_search_p99", "settle_timeout",
	} {
		require.ErrorContains(t, err, field)
	}
}
