package recovery_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/loadtest/recovery"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

func small(t *testing.T) recovery.Options {
	o := recovery.DefaultOptions()
	o.Starling, o.WorkDir = starlingtest.Command(t), t.TempDir()
	o.Vehicles, o.Streams, o.FixesPerSecond = 200, 2, 200
	o.History, o.Between, o.Kills = time.Second, time.Second, 2
	o.Rounds, o.Warmup, o.Duration = 1, 0, 2*time.Second
	o.Progress = func(s string) { t.Log(s) }
	return o
}

func TestAKilledFleetIsServedAgain(t *testing.T) {
	o := small(t)
	o.Limit = time.Hour
	r, err := recovery.Run(t.Context(), o)
	require.NoError(t, err)
	require.True(t, r.OK())
	require.Len(t, r.Kills, 2)
	for _, k := range r.Kills {
		require.Positive(t, k.Serving)
		require.Positive(t, k.Loading)
		require.Positive(t, k.RestoredVehicles)
		require.LessOrEqual(t, k.RestoredVehicles, int64(200+24), "the fleet and a beacon in each partition")
		require.Positive(t, k.ReadTracks)
	}
	require.Empty(t, r.Misses())
	require.Empty(t, leftovers(t, o.WorkDir))
}

func TestTheCostOfCheckpointsIsMeasured(t *testing.T) {
	o := small(t)
	c, err := recovery.RunCost(t.Context(), o)
	if err != nil {
		// Reported of a machine that is busy otherwise, instead of a wrong figure.
		require.ErrorContains(t, err, "the machine does not sustain the rate")
		return
	}
	require.Len(t, c.Rounds, 1)
	require.Positive(t, c.Rounds[0].With)
	require.Positive(t, c.Rounds[0].Without)
	require.Contains(t, c.String(), "200 vehicles with full windows")
	require.Empty(t, leftovers(t, o.WorkDir))
}

func leftovers(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	return entries
}

func TestMediansAndLimits(t *testing.T) {
	r := recovery.Result{Log: "kafka", Limit: 5 * time.Second, Kills: []recovery.Kill{
		{Serving: 9 * time.Second}, {Serving: time.Second}, {Serving: 5 * time.Second},
	}}
	require.True(t, r.OK())
	require.Contains(t, r.String(), "| median | 5.00 s |")
	require.Contains(t, r.String(), "session of 6s was over")
	r.Kills = append(r.Kills, recovery.Kill{Serving: 6 * time.Second})
	require.Equal(t, 5500*time.Millisecond, r.Serving())
	require.False(t, r.OK())
	require.Equal(t, []string{"served again after 5.50 s (median of 4 kills), the limit is 5s"}, r.Misses())
	require.False(t, recovery.Result{}.OK(), "nothing was measured")

	c := recovery.Cost{Rounds: []recovery.CostRound{{With: 1000, Without: 950}, {With: 1000, Without: 890}, {With: 1000, Without: 900}}}
	require.InDelta(t, 0.1, c.Share(), 1e-9)
	require.True(t, c.OK())
	c.Rounds[2].Without = 880
	require.InDelta(t, 0.11, c.Share(), 1e-9)
	require.False(t, c.OK())
	require.Equal(t, []string{"checkpoints take 11.0 % of the CPU for each fix (median of 3 rounds), the limit is 10 %"}, c.Misses())
	require.Contains(t, c.String(), "| median | 1.00 µs/fix | 0.89 µs/fix | 11.0 % |")
}

func TestValidateNamesEveryFault(t *testing.T) {
	_, err := recovery.Run(t.Context(), recovery.Options{History: -1, Between: -1, Warmup: -1})
	for _, field := range []string{"starling", "vehicles", "fixes_per_second", "fixes_per_report", "history", "between", "kills", "rounds", "warmup", "duration", "limit"} {
		require.ErrorContains(t, err, field)
	}
}
