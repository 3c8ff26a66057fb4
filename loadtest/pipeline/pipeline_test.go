package pipeline

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/latency"
)

var kept [][]byte

// keepABuffer allocates what the profile is then searched for.
//
//go:noinline
func keepABuffer(n int) {
	for range 16 {
		kept = append(kept, make([]byte, n/16))
	}
}

func TestHeapByPackageFindsWhatIsLive(t *testing.T) {
	const size = 64 << 20
	keepABuffer(size)
	defer func() { kept = nil }()
	var profile bytes.Buffer
	// Twice, because a profile shows what was live two collections ago.
	for range 2 {
		profile.Reset()
		runtime.GC()
		require.NoError(t, pprof.Lookup("heap").WriteTo(&profile, 1))
	}
	got, err := heapByPackage(&profile, map[string]string{"pipeline.keepABuffer": "kept"})
	require.NoError(t, err)
	require.InEpsilon(t, size, got["kept"], 0.1)
	require.Less(t, got["other"], float64(size)/2)
}

func TestHeapByPackageScalesAndAttributes(t *testing.T) {
	// 512-byte objects are sampled once in about a thousand at the usual rate.
	got, err := heapByPackage(strings.NewReader(`heap profile: 3: 4196352 [4: 4196864] @ heap/1048576
2: 1024 [3: 1536] @ 0x1 0x2
#	0x1	example.com/wire.decode+0x1	/x/wire.go:1
#	0x2	example.com/tracker.(*state).step+0x2	/x/tracker.go:2
#	0x3	example.com/matcher.Run+0x3	/x/matcher.go:2

1: 4194304 [1: 4194304] @ 0x4
#	0x4	example.com/other.run+0x4	/x/other.go:1

0: 0 [1: 512] @ 0x5
#	0x5	example.com/matcher.gone+0x4	/x/matcher.go:1

# runtime.MemStats
# Alloc = 1
`), map[string]string{"com/tracker.": "tracker", "com/matcher.": "matcher"})
	require.NoError(t, err)
	require.InEpsilon(t, 1024*1024.5, got["tracker"], 0.01)
	require.InEpsilon(t, 4194304, got["other"], 0.01)
	require.Zero(t, got["matcher"])
	_, err = heapByPackage(strings.NewReader("nonsense\n"), nil)
	require.Error(t, err)
}

func TestMediansAndMisses(t *testing.T) {
	shown := func(ms int) latency.Summary { return latency.Summary{P99: time.Duration(ms) * time.Millisecond} }
	s := rounds{
		n: 5, sustainable: 100,
		baselineIngest: []run{{fixesPerSecond: 100}, {fixesPerSecond: 200}, {fixesPerSecond: 1000}},
		starlingIngest: []run{{fixesPerSecond: 90}, {fixesPerSecond: 220}, {fixesPerSecond: 500}},
		baselineWhole:  []run{{cpuPerFix: 1000}, {cpuPerFix: 2000}, {cpuPerFix: 3000}},
		starlingWhole:  []run{{cpuPerFix: 2500, searchable: shown(20)}, {cpuPerFix: 3000, searchable: shown(500), lag: time.Second}, {cpuPerFix: 4100, searchable: shown(30)}},
	}
	m := s.medians()
	require.Equal(t, 200.0, m.BaselineIngest)
	require.Equal(t, 0.9, m.IngestRatio, "the median of the ratios 0.9, 1.1 and 0.5")
	require.Equal(t, 1100*time.Nanosecond, m.CPUAboveBaseline)
	require.Equal(t, 30*time.Millisecond, m.SearchableP99)
	require.Equal(t, time.Second, m.WorstLag)
	require.Equal(t, 50.0, m.Rate)

	r := Result{Log: "local", Duration: 20 * time.Second, Sizes: []Size{m}, Heap: &Heap{Vehicles: 1, WindowFixes: 20, TrackerB: 2496, MatcherB: 300}}
	require.Empty(t, r.Misses())
	r.Sizes[0].IngestRatio, r.Sizes[0].CPUAboveBaseline, r.Sizes[0].SearchableP99, r.Sizes[0].WorstLag = 0.79, 2100, 101*time.Millisecond, 3*time.Second
	r.Heap.TrackerB, r.Heap.MatcherB = 2497, 301
	require.Len(t, r.Misses(), 6)
	require.Contains(t, Results{r}.Misses()[0], "5 a report: 0.79 of the baseline's")
	require.Contains(t, Results{r}.String(), "| **Starling / baseline** | **0.79** |")
	r.Sizes[0].FixesPerReport = 1
	require.Len(t, r.Misses(), 5, "one fix a report may cost more")
	r.Log = "kafka"
	require.Empty(t, r.Misses())
	require.Equal(t, "1,234,567", thousands(1234567))
	require.Equal(t, "567", thousands(567))
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := Options{FixesPerReport: []int{0}, HeapVehicles: -1}.Validate()
	for _, field := range []string{"starling", "serve", "fixes_per_report", "rounds", "warmup", "heap_vehicles"} {
		require.ErrorContains(t, err, field)
	}
}
