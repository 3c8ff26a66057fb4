package fanout

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Walking through parts that end early, each for a reason of its own, finds every
// item once and in order.
func TestZip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	key := func(s string) string { return s }
	for range 300 {
		var sources [3][]string
		want := map[string]bool{}
		for range rng.IntN(60) {
			item := fmt.Sprintf("%03d", rng.IntN(200))
			want[item] = true
			for i := range sources {
				if rng.IntN(2) == 0 || i == len(item)%3 {
					sources[i] = append(sources[i], item)
				}
			}
		}
		for i := range sources {
			slices.Sort(sources[i])
			sources[i] = slices.Compact(sources[i])
		}
		var got []string
		n := 1 + rng.IntN(10)
		for after, more := "", true; more; {
			var parts []part[string]
			for _, source := range sources {
				start, _ := slices.BinarySearchFunc(source, after, func(a, b string) int { return cmp.Compare(a, b+"\x00") })
				rest := source[start:]
				size := min(len(rest), 1+rng.IntN(n)) // short of n as when bytes run out
				p := part[string]{items: rest[:size], more: size < len(rest)}
				if p.more {
					p.upTo = rest[size-1]
				}
				parts = append(parts, p)
			}
			items, next := mergeSorted(parts, key, func(a, b string) string { require.Equal(t, a, b); return a })
			items, next = truncate(items, next, n, key, func(string) int { return 1 })
			require.LessOrEqual(t, len(items), n)
			got = append(got, items...)
			after, more = next, next != ""
		}
		require.True(t, slices.IsSorted(got))
		require.Len(t, got, len(want), "%s", strings.Join(got, " "))
	}
}

func TestCutByBytes(t *testing.T) {
	key, size := func(s string) string { return s }, func(string) int { return pageBytes / 2 }
	items, next := truncate([]string{"a", "b", "c"}, "", 10, key, size)
	require.Equal(t, []string{"a", "b"}, items)
	require.Equal(t, "b", next)
	items, _ = truncate([]string{"a", "b"}, "", 10, key, func(string) int { return 2 * pageBytes })
	require.Equal(t, []string{"a"}, items, "one at least")
}
