package latency_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/latency"
)

func TestQuantilesAgainstSorting(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, 1<<uint(rapid.IntRange(1, 62).Draw(rt, "bits"))), 1, 300).Draw(rt, "ns")
		var h latency.Histogram
		var sum int64
		overflow := false
		for _, v := range values {
			h.Record(time.Duration(v))
			overflow = overflow || sum+v < sum
			sum += v
		}
		slices.Sort(values)
		n := int64(len(values))
		require.Equal(rt, n, h.Count())
		require.EqualValues(rt, values[n-1], h.Max())
		if !overflow {
			require.EqualValues(rt, sum/n, h.Mean())
		}
		for _, q := range []float64{0, 0.25, 0.5, 0.9, 0.99, 1} {
			exact := values[min(n, int64(q*float64(n))+1)-1]
			got := int64(h.Quantile(q))
			require.GreaterOrEqual(rt, got, exact)
			require.LessOrEqual(rt, float64(got), float64(exact)*(1+1.0/32)+1)
		}
	})
}

func TestSummaryOfNothing(t *testing.T) {
	var h latency.Histogram
	h.Record(-time.Second)
	require.Zero(t, h.Max())
	require.Equal(t, "none measured", (latency.Summary{}).String())
	require.Contains(t, h.Summary().String(), "(1)")
}
