package step

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/wire"
)

// The ring holds what a slice would, wherever in it the oldest stands.
func TestOpenFixesAreWhatASliceWouldHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ring openFixes
		var plain []wire.Fix
		nextMS := int64(1)
		draw := func() (fixes []wire.Fix) {
			for range rapid.IntRange(0, 9).Draw(t, "fixes") {
				nextMS += rapid.Int64Range(2, 4).Draw(t, "interval")
				fixes = append(fixes, wire.Fix{DeviceTimeMS: nextMS, LatDeg: float64(nextMS)})
			}
			return fixes
		}
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				fixes := draw()
				ring.push(fixes)
				plain = append(plain, fixes...)
			case 1:
				n := rapid.IntRange(0, len(plain)).Draw(t, "dropped")
				ring.drop(n)
				plain = slices.Delete(plain, 0, n)
			case 2:
				var between []wire.Fix
				for i := range plain {
					if rapid.Bool().Draw(t, "before") && (i == 0 || plain[i-1].DeviceTimeMS < plain[i].DeviceTimeMS-1) {
						between = append(between, wire.Fix{DeviceTimeMS: plain[i].DeviceTimeMS - 1, LonDeg: 1})
					}
				}
				between = append(between, draw()...)
				ring.merge(between)
				plain = append(plain, between...)
				sortByTime(plain)
			default:
				ring = ordered(ring.appendTo(nil))
			}
			require.Equal(t, len(plain), ring.len())
			require.True(t, slices.Equal(plain, ring.appendTo(nil)))
			at := rapid.Int64Range(0, nextMS+1).Draw(t, "time")
			require.Equal(t, countBefore(plain, at), ring.countBefore(at))
			i := slices.IndexFunc(plain, func(f wire.Fix) bool { return f.DeviceTimeMS == at })
			fix, found := ring.find(at)
			require.Equal(t, i >= 0, found)
			if found {
				require.Equal(t, plain[i], *fix)
			}
		}
	})
}
