package watchers_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/loadtest/starlingtest"
	"github.com/starling-fleet/starling/loadtest/watchers"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// few watches a little with a bound that a slow and shared machine keeps under
// the race detector; the command's is the promise.
func few(t *testing.T) watchers.Options {
	o := watchers.DefaultOptions()
	o.Starling, o.WorkDir = starlingtest.Command(t), t.TempDir()
	o.Watchers, o.Areas, o.VehiclesPerArea, o.StreamsPerConnection = 60, 30, 3, 20
	o.Warmup, o.Duration, o.MaxP99 = 100*time.Millisecond, 3*time.Second, time.Minute
	o.Progress = func(s string) { t.Log(s) }
	return o
}

func TestWatchersGetChanges(t *testing.T) {
	r, err := watchers.Run(t.Context(), few(t))
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.Positive(t, r.FixToClient.Count)
	require.Positive(t, r.UpdatesPerSecond)
	require.EqualValues(t, 60, r.Snapshot.Count)
	require.Zero(t, r.Rescans)
}

func TestPromisesThatAreMissedAreNamed(t *testing.T) {
	o := few(t)
	o.Duration, o.MaxP99 = time.Second, 1
	r, err := watchers.Run(t.Context(), o)
	require.NoError(t, err)
	require.NotEmpty(t, r.Misses())
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := watchers.Run(t.Context(), watchers.Options{MinInterval: time.Millisecond})
	for _, field := range []string{"starling", "watchers", "areas", "vehicles_per_area", "change_period", "min_interval", "streams_per_connection", "duration", "max_p99"} {
		require.ErrorContains(t, err, field)
	}
}
