package step_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// noonMS is where the time of all these tests starts.
const noonMS = 1_767_268_800_000

// fleet makes the records of vehicles that drive about at 1 Hz and report
// every so many seconds, one vehicle after another.
type fleet struct {
	perReport    int
	availability starlingv1.Availability
	ids          [][]byte
	records      []step.Record
	next         int64
	streamMS     int64
}

func newFleet(vehicles, perReport int) *fleet {
	f := &fleet{perReport: perReport, streamMS: noonMS}
	for i := range vehicles {
		f.ids = append(f.ids, fmt.Appendf(nil, "vehicle-%06d", i))
	}
	return f
}

// round fills f.records with one report of every vehicle.
func (f *fleet) round() {
	n := f.next / int64(len(f.ids))
	f.records = f.records[:0]
	for i, id := range f.ids {
		rng := rand.New(rand.NewPCG(uint64(i), uint64(n)))
		l := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: uint64(i) + 1, Sequence: n + 1, Availability: f.availability}}
		for k := range f.perReport {
			s := float64(int(n)*f.perReport + k)
			l.Report.Fixes = append(l.Report.Fixes, wire.Fix{
				DeviceTimeMS: noonMS + int64(s)*1000,
				LatDeg:       math.Round((30.27+float64(i%100)*0.001+s*1e-4+rng.NormFloat64()*1e-5)*1e7) / 1e7,
				LonDeg:       math.Round((-97.74+float64(i/100)*0.001+rng.NormFloat64()*1e-5)*1e7) / 1e7,
				AccuracyM:    5, SpeedMPS: 11, HeadingDeg: 1,
				Has: wire.HasAccuracy | wire.HasSpeed | wire.HasHeading,
			})
		}
		f.records = append(f.records, step.Record{
			Offset: f.next, AppendTimeMS: f.streamMS + int64(i)*1000*int64(f.perReport)/int64(len(f.ids)), Key: id, Value: l.Append(nil),
		})
		f.next++
	}
	f.streamMS += 1000 * int64(f.perReport)
}

func newPartition(t testing.TB) *step.Partition {
	p, err := step.NewPartition(defaultSettings(t), 1)
	require.NoError(t, err)
	return p
}

func defaultSettings(t testing.TB) step.Settings {
	s, err := step.DecodeSettings(step.DefaultSettings().Encode())
	require.NoError(t, err)
	return s
}

// BenchmarkStep is decode, step and encode, per report, with full windows, as the
// owner of a partition does it.
func BenchmarkStep(b *testing.B) {
	for _, perReport := range []int{1, 5, 50} {
		b.Run(fmt.Sprintf("fixes=%d", perReport), func(b *testing.B) {
			p, f := newPartition(b), newFleet(10_000, perReport)
			for range max(3, 120/perReport) { // until windows and memories are full
				f.round()
				for _, rec := range f.records {
					_, err := p.Step(rec)
					require.NoError(b, err)
				}
			}
			var out []byte
			var cpu time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= len(f.records) {
				b.StopTimer()
				f.round()
				started := cpuTime()
				b.StartTimer()
				for i, rec := range f.records[:min(left, len(f.records))] {
					if i%step.WarmMax == 0 {
						p.Warm(f.ids[i:])
					}
					r, err := p.Step(rec)
					if err != nil || r.Poison != nil {
						b.Fatal(err, r.Poison)
					}
					out = r.Track.Append(out[:0])
				}
				cpu += cpuTime() - started
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*perReport), "cpu-ns/fix")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perReport), "ns/fix")
			b.ReportMetric(float64(len(out)), "B/track")
		})
	}
}

// BenchmarkCut is what a checkpoint costs the partition's goroutine, per vehicle.
func BenchmarkSnapshot(b *testing.B) {
	p, f := newPartition(b), newFleet(10_000, 1)
	var buffer []byte
	bytes := 0
	for range 120 {
		f.round()
		for _, rec := range f.records {
			_, err := p.Step(rec)
			require.NoError(b, err)
		}
	}
	p.Snapshot(nil, nil)
	b.ResetTimer()
	for i := 0; i < b.N; i += len(f.ids) {
		b.StopTimer()
		f.round()
		for _, rec := range f.records {
			_, err := p.Step(rec)
			require.NoError(b, err)
		}
		b.StartTimer()
		c := p.Snapshot(buffer, nil)
		buffer, bytes = c.Buffer, len(c.Buffer)
	}
	b.ReportMetric(float64(bytes)/float64(len(f.ids)), "B/vehicle")
}

// BenchmarkLoad restores a partition, per vehicle.
func BenchmarkLoad(b *testing.B) {
	p, f := newPartition(b), newFleet(10_000, 1)
	for range 35 {
		f.round()
		for _, rec := range f.records {
			_, err := p.Step(rec)
			require.NoError(b, err)
		}
	}
	c := p.Snapshot(nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		loader, err := step.NewLoader(defaultSettings(b), 1)
		require.NoError(b, err)
		for i := range c.Changes {
			if err := loader.Add(c.Changes[i].Key, c.Changes[i].Value); err != nil {
				b.Fatal(err)
			}
		}
		_, err = loader.Partition(c.Resume, step.Bounds{End: c.Resume})
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(f.ids)), "ns/vehicle")
}

// BenchmarkMemory is the live heap of a large fleet, per vehicle.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(bytesPerVehicle(b, 100_000), "B/vehicle")
	}
}

// The promise is at most 1.75 KiB, 48 B for each fix in the window and 8 B for
// each that is remembered.
func TestMemoryOfVehicles(t *testing.T) {
	perVehicle := bytesPerVehicle(t, 1_000)
	t.Logf("%.0f B a vehicle with %d fixes in the window and %d remembered", perVehicle, windowFixes, step.DefaultSettings().RememberFixes)
	require.LessOrEqual(t, perVehicle, 1792.0+48*windowFixes+8*float64(step.DefaultSettings().RememberFixes))
}

// windowFixes is how many fixes a window of 30 s holds at 1 Hz.
const windowFixes = 31

func bytesPerVehicle(t testing.TB, vehicles int) float64 {
	f := newFleet(vehicles, 1)
	p := newPartition(t)
	before := heap()
	for range windowFixes + step.DefaultSettings().RememberFixes + 5 {
		f.round()
		for _, rec := range f.records {
			_, err := p.Step(rec)
			require.NoError(t, err)
		}
		p.Snapshot(nil, nil)
		clear(f.records)
	}
	f.records = nil
	after := heap()
	require.Equal(t, vehicles, p.Vehicles())
	runtime.KeepAlive(p)
	runtime.KeepAlive(f)
	return float64(after-before) / float64(vehicles)
}

// cpuTime is what the process has used, which other load on the machine
// disturbs less than the wall clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
