package rideevents_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/loadtest/rideevents"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// few measures a little with a bound that a slow and shared machine keeps under the
// race detector; the command's is the promise.
func few(t *testing.T) rideevents.Options {
	o := rideevents.DefaultOptions()
	o.Starling, o.WorkDir, o.Redis = starlingtest.Command(t), t.TempDir(), ""
	o.Subscribers, o.Connections = 30, 3
	o.Warmup, o.Duration, o.MaxP99 = 100*time.Millisecond, 2500*time.Millisecond, time.Minute
	o.Progress = func(s string) { t.Log(s) }
	return o
}

func TestEverySubscriberIsSentItsVehiclesPositions(t *testing.T) {
	r, err := rideevents.Run(t.Context(), few(t))
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.Empty(t, r.Misses())
	require.Len(t, r.Starling, 1)
	require.Positive(t, r.Starling[0].Delivered)
	require.Positive(t, r.Starling[0].ToClient.P99)
}

func TestGoalsThatAreMissedAreNamed(t *testing.T) {
	r := rideevents.Result{Options: rideevents.DefaultOptions(), Starling: make([]rideevents.Served, 1), Centrifugo: make([]rideevents.Served, 1)}
	r.Starling[0].ToClient.P99, r.Starling[0].CPUMicros, r.Starling[0].Silent = time.Second, 9, 1
	r.Centrifugo[0].ToClient.P99, r.Centrifugo[0].CPUMicros = time.Millisecond, 10
	require.Len(t, r.Misses(), 4)
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := rideevents.Run(t.Context(), rideevents.Options{Centrifugo: "centrifugo"})
	for _, field := range []string{"starling", "redis", "subscribers", "period", "connections", "rounds", "duration", "max_p99", "max_cpu_ratio"} {
		require.ErrorContains(t, err, field)
	}
}
