package region_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/geo"
)

// BenchmarkDistance bounds how far the rest is from the middle of a city.
func BenchmarkDistance(b *testing.B) {
	for _, k := range []int{5, 10, 36} {
		cells := disk(b, 48.2, 16.37, 8, k)
		b.Run(fmt.Sprintf("cells=%d", len(cells)), func(b *testing.B) {
			m, err := region.Parse([]string{"city=" + list(b, cells), "else=rest"})
			require.NoError(b, err)
			from := geo.Unit(48.2, 16.37)
			for b.Loop() {
				m.DistanceM(1, from)
			}
		})
	}
}
