package historydrill_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/loadtest/historydrill"
	"github.com/starling-fleet/starling/loadtest/historydrill/judge"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// The short form: a simulated fleet over two hours of device time, with duplicates and
// fixes that come late, while Starling and ClickHouse are killed.
func TestShortDrill(t *testing.T) {
	clickhousetest.Need(t)
	o := historydrill.DefaultOptions()
	o.Starling, o.WorkDir, o.Kills, o.Partitions, o.Interval, o.Away, o.Patience, o.Seed = starlingtest.Command(t), t.TempDir(), 4, 2, 300*time.Millisecond, 2*time.Second, 3*time.Minute, 2
	o.Progress = func(s string) { t.Log(s) }
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Now().Add(-3 * time.Hour).UnixMilli()
	for n := range int64(240) {
		for v := range 20 {
			fix := &starlingv1.Fix{DeviceTimeMs: start + n*30_000, Latitude: 48.2 + float64(n)*1e-4 + rng.Float64()*1e-5, Longitude: 16.3 + float64(v)*0.01}
			f := historydrill.Fix{Vehicle: fmt.Sprintf("car-%02d", v), Fix: fix}
			o.Fixes = append(o.Fixes, f)
			switch rng.IntN(30) {
			case 0: // sent twice
				o.Fixes = append(o.Fixes, f)
			case 1: // another content under a time that was there
				o.Fixes = append(o.Fixes, historydrill.Fix{Vehicle: f.Vehicle, Fix: &starlingv1.Fix{DeviceTimeMs: fix.DeviceTimeMs, Latitude: 48.3, Longitude: 16.4}})
			case 3: // refused by ingest
				o.Fixes = append(o.Fixes, historydrill.Fix{Vehicle: f.Vehicle, Fix: &starlingv1.Fix{DeviceTimeMs: fix.DeviceTimeMs + 1}})
			case 2: // late
				o.Fixes = append(o.Fixes, historydrill.Fix{Vehicle: f.Vehicle, Fix: &starlingv1.Fix{DeviceTimeMs: max(start-1, fix.DeviceTimeMs-600_001), Latitude: 48.1, Longitude: 16.2}})
			}
		}
	}
	account, err := historydrill.Run(t.Context(), o)
	require.NoError(t, err)
	t.Log(account)
	require.Empty(t, account.Misses())
	require.Equal(t, 4, account.KilledStarling+account.KilledCH)
	require.Positive(t, account.KilledStarling)
	require.Positive(t, account.KilledCH)
	require.Less(t, account.Distinct, account.Rows)
	require.Positive(t, account.Refused)
	require.Positive(t, account.CellHours)
}

func TestDifferencesAreFound(t *testing.T) {
	fleet := func() judge.Fleet {
		return judge.Fleet{"a": {{TimeMS: 1, LatE7: 2, LonE7: 3}, {TimeMS: 2, LatE7: 2, LonE7: 3}}, "b": {{TimeMS: 1}}}
	}
	require.Empty(t, judge.Differences(fleet(), fleet()))
	for name, change := range map[string]func(judge.Fleet){
		"lost":     func(f judge.Fleet) { f["a"] = f["a"][:1] },
		"doubled":  func(f judge.Fleet) { f["b"] = append(f["b"], f["b"][0]) },
		"changed":  func(f judge.Fleet) { f["a"][1].LatE7++ },
		"vehicle":  func(f judge.Fleet) { delete(f, "b") },
		"invented": func(f judge.Fleet) { f["c"] = f["b"] },
	} {
		kept := fleet()
		change(kept)
		require.Len(t, judge.Differences(fleet(), kept), 1, name)
	}
	kept := fleet()
	kept["a"] = kept["a"][1:]
	kept["c"] = kept["b"]
	missing, beyond := judge.Missing(fleet(), kept)
	require.Equal(t, []int{1, 1}, []int{missing, beyond})
	first := judge.Fleet{"a": {{TimeMS: 2, LatE7: 1}, {TimeMS: 1}, {TimeMS: 2, LatE7: 9}}}
	require.Equal(t, 2, first.First())
	require.Equal(t, judge.Fleet{"a": {{TimeMS: 1}, {TimeMS: 2, LatE7: 1}}}, first)
}
