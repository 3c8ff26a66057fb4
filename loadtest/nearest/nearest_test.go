package nearest

import (
	"context"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/loadtest/starlingtest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func TestMain(m *testing.M) { starlingtest.Main(m) }

// The whole of Starling's side, with few vehicles.
func TestStarlingIsFilledMovedAndSearched(t *testing.T) {
	opts := DefaultOptions()
	opts.Starling, opts.WorkDir, opts.SideM = starlingtest.Command(t), t.TempDir(), 1000
	target, err := startStarling(t.Context(), &opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, target.stop()) }()
	fleet := newFleet(allLayouts[0], 300, opts.SideM, 1)
	require.NoError(t, target.fill(t.Context(), fleet))
	before, err := target.updated(t.Context())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() { moved <- target.update(ctx, fleet, 1000) }()
	searchers, err := target.searchers(2)
	require.NoError(t, err)
	for i := range 200 {
		found, err := searchers[i%2].search(t.Context(), query{latDeg: centreLatDeg, lonDeg: centreLonDeg, filtered: i%4 > 1})
		require.NoError(t, err)
		if i%4 <= 1 {
			require.Equal(t, opts.Results, found)
		}
	}
	require.Eventually(t, func() bool {
		now, err := target.updated(t.Context())
		return err == nil && now > before
	}, time.Minute, 10*time.Millisecond)
	stop()
	require.NoError(t, <-moved)
}

// The load generator's own decoder must see what the generated one sees.
func TestAnswerIsDecoded(t *testing.T) {
	message := &starlingv1.SearchNearestResponse{
		Results: []*starlingv1.NearbyVehicle{
			{Vehicle: &starlingv1.Vehicle{Name: "vehicles/a", Position: &starlingv1.Position{Latitude: 1, Longitude: -2, VarEastM2: 3}, H3Cell: "8a"}, DistanceM: 4},
			{Vehicle: &starlingv1.Vehicle{Name: "vehicles/b"}, DistanceM: 5.5},
		},
		StalePartitions: []*starlingv1.StalePartition{{Partition: 7}},
	}
	b, err := proto.Marshal(message)
	require.NoError(t, err)
	a := answer{results: make([]found, 5)}
	require.NoError(t, a.decode(b))
	require.Equal(t, []found{{"vehicles/a", 4, 1, -2}, {"vehicles/b", 5.5, 0, 0}}, a.results)
	require.Error(t, a.decode(b[:len(b)-1]))
}

func TestFleetStaysInItsSquares(t *testing.T) {
	const side, n = 10_000.0, 20_000
	for _, l := range allLayouts {
		fleet := newFleet(l, n, side, 1)
		for _, seconds := range []int64{0, 5, 100, 1000, 3000} {
			inCore := 0
			for i := range fleet {
				v := &fleet[i]
				v.drive(1_700_000_000_000 + seconds*1000)
				north, east := (v.latDeg-centreLatDeg)*metresPerLatDeg, (v.lonDeg-centreLonDeg)*metresPerLonDeg
				require.LessOrEqual(t, max(math.Abs(north), math.Abs(east)), v.reachM+1e-6)
				if max(math.Abs(north), math.Abs(east)) <= side/2*l.core+1e-6 {
					inCore++
				}
			}
			if l.name == "downtown" {
				require.InDelta(t, 0.8*n, inCore, 0.02*n, "80 %% of the vehicles are in 1 %% of the area")
			}
			if l.name == "onespot" {
				require.Equal(t, n, inCore)
			}
		}
		passing := 0
		for _, v := range fleet {
			if v.availability == starlingv1.Availability_AVAILABILITY_FREE && v.seats >= passesOneInTwenty.GetMinSeats() {
				passing++
			}
		}
		require.InDelta(t, n/20, passing, n/100)
	}
}

func TestPaceLeavesOutWhatCannotBeKeptUpWith(t *testing.T) {
	p := newPace(1000)
	p.began = time.Now().Add(-time.Second)
	n := p.due(1 << 20)
	require.InDelta(t, 100, n, 2, "a tenth of a second's at most")
	p.began = p.began.Add(-50 * time.Millisecond)
	require.Equal(t, 10, p.due(10))
}

func TestBarsCompareMedians(t *testing.T) {
	m := func(rate float64, p99 time.Duration) Measurement {
		return Measurement{SearchesPerSecond: rate, UpdatesPerSecond: 20_000, Latency: latency.Summary{P99: p99}}
	}
	r := Result{UpdatesPerSecond: 20_000, Layouts: []LayoutResult{{
		Layout:   "uniform",
		Starling: []Measurement{m(900, 1), m(1600, 1), m(5000, 1)}, Redis: []Measurement{m(100, 9), m(200, 9), m(600, 9)},
		Filtered: []Measurement{m(300, 1), m(800, 1), m(2000, 1)},
		OpenLoop: []Measurement{m(1, 5), m(1, 4), m(1, 6)}, RedisOpenLoop: []Measurement{m(1, 8), m(1, 8), m(1, 8)},
	}}}
	r.Bars = r.bars()
	values := map[string]float64{}
	for _, b := range r.Bars {
		values[b.Name] = b.Value
	}
	require.InDelta(t, 8.333, values["uniform, flat out: searches/s, Starling / Redis"], 0.01, "9, 8 and 8.33")
	require.InDelta(t, 0.4, values["uniform: searches/s with filters / without"], 1e-9)
	require.InDelta(t, 0.625, values["uniform, open loop: p99, Starling / Redis"], 1e-9)
	missed := r.Misses()
	require.Len(t, missed, 2)
	require.Contains(t, r.String(), "**missed**")
}

// End to end on a small fleet, where redis-server is installed, as it must be in CI: every
// measurement must have happened.
func TestRedisIsMeasured(t *testing.T) {
	redis, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("needs redis-server")
	}
	require.NoError(t, err)
	o := DefaultOptions()
	o.Redis, o.Vehicles, o.UpdatesPerSecond, o.WorkDir = redis, 500, 200, t.TempDir()
	o.Warmup, o.Duration, o.SideM = 0, time.Second, 2000
	require.NoError(t, o.Validate())
	b := &bench{opts: o, redisOK: 50}
	b.opts.Progress = func(s string) { t.Log(s) }
	var got LayoutResult
	require.NoError(t, b.roundOfRedis(context.Background(), allLayouts[0], &got))
	for _, m := range append(got.Redis, got.RedisOpenLoop...) {
		require.Positive(t, m.SearchesPerSecond)
		require.Positive(t, m.Latency.Count)
		require.Zero(t, m.Short, "ten of 500 vehicles on 4 km² are within 2 km of any place")
	}
	require.Len(t, got.RedisOpenLoop, 1)
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	o := DefaultOptions()
	require.NoError(t, o.Validate())
	o.Layouts, o.Redis, o.RadiusM = []string{"mars"}, "", 0
	err := o.Validate()
	require.ErrorContains(t, err, "mars")
	require.ErrorContains(t, err, "open_loop_per_second")
	require.ErrorContains(t, err, "radius_m")
}
