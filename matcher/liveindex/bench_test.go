package liveindex_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A layout spreads a fleet over a city of 60 km by 60 km.
type layout struct {
	name  string
	place func(*rand.Rand) (latDeg, lonDeg float64)
}

const cityLat, cityLon = 30.27, -97.74

func around(rng *rand.Rand, sideM float64) (latDeg, lonDeg float64) {
	const degPerM = 1 / 111_195.0
	return cityLat + (rng.Float64()-0.5)*sideM*degPerM, cityLon + (rng.Float64()-0.5)*sideM*degPerM/0.8637
}

var layouts = []layout{
	{"uniform", func(rng *rand.Rand) (float64, float64) { return around(rng, 60_000) }},
	{"downtown", func(rng *rand.Rand) (float64, float64) {
		if rng.IntN(5) > 0 {
			return around(rng, 6_000)
		}
		return around(rng, 60_000)
	}},
	{"onespot", func(*rand.Rand) (float64, float64) { return cityLat, cityLon }},
}

func fleetView(rng *rand.Rand, l layout, i int) wire.View {
	v := wire.View{
		VehicleID: fmt.Sprintf("vehicle-%07d", i), DeviceTimeMS: 1_700_000_000_000, SeenTimeMS: 1_700_000_000_000,
		Cell: 0x8928308280fffff, HasAttributes: true,
		Availability: starlingv1.Availability(1 + rng.IntN(4)),
		Attributes:   wire.Attributes{Type: types[rng.IntN(4)], Seats: int32(1 + rng.IntN(5)), Tags: tags[:rng.IntN(4)]},
	}
	v.LatDeg, v.LonDeg = l.place(rng)
	return v
}

func build(tb testing.TB, l layout, n int) (*liveindex.Index, []wire.View) {
	rng := rand.New(rand.NewPCG(1, 2))
	x := liveindex.New(nil)
	views := make([]wire.View, n)
	for i := range views {
		views[i] = fleetView(rng, l, i)
		if err := x.Upsert(&views[i]); err != nil {
			tb.Fatal(err)
		}
	}
	return x, views
}

// move drives a vehicle on by about 50 m, as one does between two reports.
func move(rng *rand.Rand, v *wire.View) {
	v.LatDeg, v.LonDeg = v.LatDeg+(rng.Float64()-0.5)*1e-3, v.LonDeg+(rng.Float64()-0.5)*1e-3
	v.DeviceTimeMS += 5000
}

// BenchmarkUpsert moves random vehicles of 100,000, with and without warming
// them up in runs of 32. Like a decoder, it reuses one view, so that only the
// index's own memory is cold.
func BenchmarkUpsert(b *testing.B) {
	for _, l := range layouts {
		for _, warm := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/warm=%v", l.name, warm), func(b *testing.B) { benchUpsert(b, l, warm) })
		}
	}
}

func benchUpsert(b *testing.B, l layout, warm bool) {
	const n, run = 100_000, 32
	x, views := build(b, l, n)
	at := make([][2]float64, n)
	for i := range views {
		at[i] = [2]float64{views[i].LatDeg, views[i].LonDeg}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	v := views[0]
	ids := make([][]byte, run)
	var numbers [run]int
	b.ReportAllocs()
	before := cpuTime()
	for done := 0; b.Loop(); done++ {
		if done%run == 0 {
			for j := range ids {
				numbers[j] = rng.IntN(n)
				ids[j] = appendID(ids[j][:0], numbers[j])
			}
			if warm {
				x.Warm(ids)
			}
		}
		id, i := ids[done%run], numbers[done%run]
		v.VehicleID = unsafe.String(&id[0], len(id))
		v.LatDeg, v.LonDeg = at[i][0], at[i][1]
		if l.name != "onespot" {
			move(rng, &v)
		}
		at[i] = [2]float64{v.LatDeg, v.LonDeg}
		if err := x.Upsert(&v); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	if x.Len() != n {
		b.Fatal("ids were made up")
	}
}

// appendID writes the id that fleetView gives, at next to no cost.
func appendID(b []byte, number int) []byte {
	b = append(b, "vehicle-0000000"...)
	for i := len(b) - 1; number > 0; i-- {
		b[i] = byte('0' + number%10)
		number /= 10
	}
	return b
}

// cpuTime is what the process has used of all cores: on a machine that others
// use too, it is a better measure than the wall clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkNearest asks for ten vehicles from where vehicles are, while another
// goroutine moves the fleet at the stated rate.
func BenchmarkNearest(b *testing.B) {
	for _, l := range layouts {
		for _, rate := range []int{0, 20_000} {
			for _, filtered := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/updates=%d/filtered=%v", l.name, rate, filtered), func(b *testing.B) {
					benchNearest(b, l, 100_000, rate, filtered)
				})
			}
		}
	}
}

func BenchmarkNearestMillion(b *testing.B) {
	benchNearest(b, layouts[0], 1_000_000, 20_000, false)
}

func benchNearest(b *testing.B, l layout, n, rate int, filtered bool) {
	x, views := build(b, l, n)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		drive(x, views, l, rate, stop)
	}()
	rng := rand.New(rand.NewPCG(7, 8))
	q := liveindex.Query{MaxResults: 10}
	if filtered { // passes about 1 in 20: 1 in 4 is free, 1 in 5 has so many seats
		q.Filter = liveindex.Filter{Availabilities: []starlingv1.Availability{2}, MinSeats: 5}
	}
	var took []time.Duration
	before := cpuTime()
	var hits []liveindex.Hit
	for b.Loop() {
		q.LatDeg, q.LonDeg = l.place(rng)
		start := time.Now()
		hits = x.Nearest(q, hits[:0])
		took = append(took, time.Since(start))
	}
	close(stop)
	<-stopped
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// drive moves vehicles at a rate per second until stop is closed.
func drive(x *liveindex.Index, views []wire.View, l layout, rate int, stop <-chan struct{}) {
	if rate == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(5, 6))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start, sent := time.Now(), 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(rate)); sent < due; sent++ {
			v := &views[rng.IntN(len(views))]
			if l.name != "onespot" {
				move(rng, v)
			}
			_ = x.Upsert(v)
		}
	}
}

// TestHeapPerVehicle holds the live heap of 100,000 vehicles, after each has
// moved once on average, to the promised bound.
func TestHeapPerVehicle(t *testing.T) {
	const n, bound = 100_000, 250
	for _, l := range layouts[1:] {
		before := liveHeap()
		x, views := build(t, l, n)
		rng := rand.New(rand.NewPCG(3, 4))
		for range n {
			v := &views[rng.IntN(n)]
			if l.name != "onespot" {
				move(rng, v)
			}
			if err := x.Upsert(v); err != nil {
				t.Fatal(err)
			}
		}
		for i := range views {
			views[i].VehicleID = "" // the index must live by its own copies
		}
		clear(views)
		views = nil
		per := (liveHeap() - before) / n
		t.Logf("%s: %d bytes per vehicle", l.name, per)
		if per > bound {
			t.Errorf("%s: %d bytes per vehicle, more than %d", l.name, per, bound)
		}
		if x.Len() != n {
			t.Fatal("vehicles are missing")
		}
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
