package ridesim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearestIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	names := make([]string, 2*fewIdle)
	for i := range names {
		names[i] = fmt.Sprintf("v%03d", i)
	}
	x := newIdle(names)
	place := func(spreadM float64) Place { return Place{rng.NormFloat64() * spreadM, rng.NormFloat64() * spreadM} }
	for range 800 {
		v := int32(rng.IntN(len(names)))
		switch {
		case x.has(v) && rng.IntN(8) == 0:
			x.remove(v)
		case !x.has(v):
			x.add(v, place(4000))
		}
		p, most := place(9000), 1+rng.IntN(20)
		var want []near
		for _, v := range x.all {
			want = append(want, near{v, p.distance(x.at[v])})
		}
		slices.SortFunc(want, func(a, b near) int {
			return cmp.Or(cmp.Compare(a.distanceM, b.distanceM), cmp.Compare(a.vehicle, b.vehicle))
		})
		want = want[:min(most, len(want))]
		require.Equal(t, append([]near{}, want...), append([]near{}, x.nearest(p, most)...))
	}
	require.Greater(t, len(x.all), fewIdle, "both ways were taken")
}
