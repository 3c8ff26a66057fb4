package matcher_test

import (
	"fmt"
	"testing"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/wire"
)

// BenchmarkApplyRegion takes in records of so many fixes each, with as many final
// points, and reports how large they are: of vehicles that are not in the matcher's
// region, which all replicas of all regions pay for, and of vehicles that are.
func BenchmarkApplyRegion(b *testing.B) {
	for _, c := range []struct {
		region       string
		fleet, fixes int
	}{
		{"elsewhere", 100_000, 1}, {"elsewhere", 100_000, 5}, {"here", 100_000, 1}, {"here", 1_000_000, 1},
	} {
		b.Run(fmt.Sprintf("%s/fleet=%d/fixes=%d", c.region, c.fleet, c.fixes), func(b *testing.B) {
			n := max(b.N, 1000)
			f := newFeed(c.fleet, n)
			bytes := f.fill(b, c.fixes)
			before := cpuTime()
			b.ResetTimer()
			_, stop := f.run(b, func(cfg *matcher.Config) {
				cfg.Region, cfg.Regions = c.region, []string{"here=8428309ffffffff", "elsewhere=rest"}
				if c.region == "elsewhere" {
					cfg.Regions = []string{"elsewhere=841e149ffffffff", "here=rest"}
				}
			})
			b.StopTimer()
			stop()
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(c.fleet+n), "cpu-ns/record")
			b.ReportMetric(float64(bytes)/float64(c.fleet+n), "B/record")
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
