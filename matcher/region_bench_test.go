package matcher_test

import (
	"fmt"
	"testing"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/wire"
)

// BenchmarkApplyElsewhere takes in records of so many fixes each, with as many
// final points, of vehicles that are not in the matcher's region: what they cost
// a matcher that drops them, and how large they are. All replicas of all regions
// pay it.
func BenchmarkApplyElsewhere(b *testing.B) {
	for _, fixes := range []int{1, 5} {
		b.Run(fmt.Sprintf("fixes=%d", fixes), func(b *testing.B) {
			const fleet = 100_000
			n := max(b.N, 1000)
			f := newFeed(fleet, n)
			bytes := f.fill(b, fixes)
			before := cpuTime()
			b.ResetTimer()
			_, stop := f.run(b, func(cfg *matcher.Config) {
				cfg.Region, cfg.Regions = "here", []string{"here=841e149ffffffff", "elsewhere=rest"}
			})
			b.StopTimer()
			stop()
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(fleet+n), "cpu-ns/record")
			b.ReportMetric(float64(bytes)/float64(fleet+n), "B/record")
		})
	}
}

// fill gives each record its number of points, and as many final ones, and
// returns the size of all.
func (f *feed) fill(tb testing.TB, fixes int) (bytes int) {
	var t wire.Track
	for _, batch := range f.batches {
		for i := range batch.Records {
			r := &batch.Records[i]
			if err := t.Unmarshal(r.Value); err != nil {
				tb.Fatal(err)
			}
			point := t.Points[0]
			t.Points, t.FinalPoints = t.Points[:0], t.FinalPoints[:0]
			for range fixes {
				t.Points, t.FinalPoints = append(t.Points, point), append(t.FinalPoints, point)
			}
			r.Value = t.Append(nil)
			bytes += len(r.Key) + len(r.Value)
		}
	}
	return bytes
}
