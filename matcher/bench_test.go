package matcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// feed is a log of one partition whose reader gives out prepared batches.
type feed struct {
	batches []eventlog.Batch
	end     int64
	drained chan struct{}
}

func (f *feed) Partitions() int32 { return 1 }
func (f *feed) Epoch() int64      { return 1 }
func (f *feed) Bounds(context.Context, string) ([]eventlog.Bounds, error) {
	return []eventlog.Bounds{{First: 0, End: f.end}}, nil
}
func (f *feed) NewReader(context.Context, string, map[int32]int64) (eventlog.Reader, error) {
	return &feedReader{feed: f}, nil
}

type feedReader struct {
	feed *feed
	next int
}

func (r *feedReader) Poll(ctx context.Context) (eventlog.Batch, error) {
	if r.next == len(r.feed.batches) {
		close(r.feed.drained)
		<-ctx.Done()
		return eventlog.Batch{}, ctx.Err()
	}
	r.next++
	return r.feed.batches[r.next-1], nil
}

func (r *feedReader) Close() error { return nil }

// newFeed prepares n records of one fix each, of random vehicles of a fleet
// that drives about a city of 60 km by 60 km, after one record of each.
func newFeed(fleet, n int) *feed {
	rng := rand.New(rand.NewPCG(1, 2))
	at := make([][2]float64, fleet)
	for i := range at {
		at[i] = [2]float64{30 + rng.Float64()*0.54, -98 + rng.Float64()*0.62}
	}
	f := &feed{drained: make(chan struct{}), end: int64(fleet + n)}
	t := wire.Track{Epoch: 1, HasLive: true, ClockMS: startMS, Points: make([]wire.TrackPoint, 1)}
	var records []eventlog.Stored
	for i := range fleet + n {
		vehicle := i
		if i >= fleet {
			vehicle = rng.IntN(fleet)
		}
		at[vehicle][0] += (rng.Float64() - 0.5) * 1e-3
		at[vehicle][1] += (rng.Float64() - 0.5) * 1e-3
		t.SourceOffset, t.PreviousSourceOffset = int64(i), int64(i-1)
		t.Counts.Accepted = 1
		t.Live = wire.View{
			VehicleID: fmt.Sprintf("vehicle-%07d", vehicle), DeviceTimeMS: startMS + int64(i), SeenTimeMS: startMS, Cell: 0x8928308280fffff,
			Estimate:     wire.Estimate{LatDeg: at[vehicle][0], LonDeg: at[vehicle][1], SpeedMPS: 10, HeadingDeg: 90, HasSpeed: true, HasHeading: true, VarEastM2: 9, VarNorthM2: 9, Verdict: 1},
			Availability: starlingv1.Availability(1 + vehicle%4), HasAttributes: true,
			Attributes: wire.Attributes{Type: []string{"van", "car"}[vehicle%2], Seats: int32(vehicle % 5), Tags: []string{"pets"}},
			Counts:     wire.FixCounts{Accepted: int64(i)},
		}
		t.Points[0] = wire.TrackPoint{Fix: wire.Fix{DeviceTimeMS: startMS + int64(i), LatDeg: at[vehicle][0], LonDeg: at[vehicle][1]}, Estimate: t.Live.Estimate}
		records = append(records, eventlog.Stored{Offset: int64(i), AppendTimeMS: startMS, Key: []byte(t.Live.VehicleID), Value: t.Append(nil)})
		if len(records) == 256 || i == fleet+n-1 {
			f.batches = append(f.batches, eventlog.Batch{Records: records, End: f.end})
			records = nil
		}
	}
	return f
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (f *feed) run(tb testing.TB, change ...func(*matcher.Config)) (*matcher.Matcher, context.CancelFunc) {
	cfg := matcher.DefaultConfig()
	cfg.RebuildWindow = 0
	for _, c := range change {
		c(&cfg)
	}
	m, err := matcher.New(cfg, matcher.Deps{Log: f, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := m.Run(ctx); err != nil {
			tb.Error(err)
		}
	}()
	<-f.drained
	return m, func() { cancel(); <-ended }
}

// BenchmarkApply takes in records of one fix each: what a record costs from the
// log's reader to being searchable.
func BenchmarkApply(b *testing.B) {
	for _, fleet := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("fleet=%d", fleet), func(b *testing.B) {
			n := max(b.N, 1000)
			f := newFeed(fleet, n)
			before := cpuTime()
			b.ResetTimer()
			_, stop := f.run(b)
			b.StopTimer()
			stop()
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(fleet+n), "cpu-ns/record")
		})
	}
}

// BenchmarkSearchNearest asks for the ten nearest over gRPC in memory, from
// several callers at once, client included.
func BenchmarkSearchNearest(b *testing.B) {
	f := newFeed(100_000, 0)
	m, stop := f.run(b)
	defer stop()
	client := dial(b, m)
	before := cpuTime()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
		for pb.Next() {
			_, err := client.SearchNearest(context.Background(), &starlingv1.SearchNearestRequest{
				Place: &starlingv1.Place{Latitude: 30 + rng.Float64()*0.54, Longitude: -98 + rng.Float64()*0.62},
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
