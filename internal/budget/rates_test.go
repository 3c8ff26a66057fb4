package budget_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/budget"
)

// A key may use a burst at once and its rate from then on, to the unit, whatever the
// steps in which it asks.
func TestMeterHoldsARate(t *testing.T) {
	rate := budget.Rate{PerSecond: 10, Burst: 3 * time.Second}
	var m budget.Meter
	now := time.Hour
	for i := range 30 {
		_, ok := m.Take(1, rate, now)
		require.True(t, ok, "%d", i)
	}
	wait, ok := m.Take(1, rate, now)
	require.False(t, ok)
	require.Equal(t, time.Millisecond, wait, "the burst is just used up")
	taken := 0
	for range 1000 { // 10 s in steps of 10 ms
		now += 10 * time.Millisecond
		if _, ok := m.Take(1, rate, now); ok {
			taken++
		}
	}
	require.InDelta(t, 100, taken, 1)

	// More than is left is given, and waited for afterwards.
	now += time.Hour
	_, ok = m.Take(1000, rate, now)
	require.True(t, ok)
	wait, ok = m.Take(1, rate, now)
	require.False(t, ok)
	require.Equal(t, 97*time.Second, wait)
	_, ok = m.Take(1, rate, now+wait+1)
	require.True(t, ok)

	_, ok = m.Take(1e12, budget.Rate{}, now)
	require.True(t, ok, "no limit")
}

// Many at a time take no more than one after the other.
func TestMeterIsSharedOut(t *testing.T) {
	rate := budget.Rate{PerSecond: 100, Burst: time.Second}
	var m budget.Meter
	var taken atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if _, ok := m.Take(1, rate, time.Minute); ok {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 100, taken.Load())
}

// Keys that come and go take a bounded part of memory, and one that is used stays.
func TestMetersAreBounded(t *testing.T) {
	meters := budget.NewMeters(160)
	rate := budget.Rate{PerSecond: 1, Burst: time.Second}
	heavy := meters.Of("heavy")
	heavy.First.Take(1000, rate, 0)
	for i := range 100_000 {
		meters.Of(fmt.Sprint("stranger ", i)).First.Take(1, rate, 0)
	}
	require.LessOrEqual(t, meters.Len(), 160)
	require.Same(t, heavy, meters.Of("heavy"), "who has used most is remembered")
}

// Each key has meters of its own and keeps them, whoever asks and at the same time.
func TestMetersAreOfTheirKeys(t *testing.T) {
	const keys = 5000
	meters := budget.NewMeters(2 * keys)
	var found [4][keys]*budget.Pair
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() {
			for j := range keys {
				n := (j*7919 + i*keys/len(found)) % keys
				found[i][n] = meters.Of(fmt.Sprint("vehicle-", n))
			}
		})
	}
	all.Wait()
	whose := map[*budget.Pair]int{}
	for n := range keys {
		for i := range found {
			require.Same(t, found[0][n], found[i][n], "%d", n)
		}
		other, taken := whose[found[0][n]]
		require.False(t, taken, "%d has the meters of %d", n, other)
		whose[found[0][n]] = n
	}
	require.Equal(t, keys, meters.Len())
}

// One after another, a new key takes the place of another when all are taken.
func TestMetersOfFewKeys(t *testing.T) {
	for most := range 20 {
		meters := budget.NewMeters(most)
		for i := range 100 {
			key := fmt.Sprint(i)
			require.Same(t, meters.Of(key), meters.Of(key))
			require.LessOrEqual(t, meters.Len(), max(most, 1))
		}
	}
}

// BenchmarkMetersOfMany looks up the vehicles of a large fleet in turn, which are in
// no cache of the processor.
func BenchmarkMetersOfMany(b *testing.B) {
	const vehicles = 100_000
	meters := budget.NewMeters(2 * vehicles)
	ids := make([]string, vehicles)
	for i := range ids {
		ids[i] = fmt.Sprintf("van-%07d", i)
		meters.Of(ids[i])
	}
	i := 0
	for b.Loop() {
		i = (i + 7919) % vehicles
		meters.Of(ids[i])
	}
}

func BenchmarkMeterTake(b *testing.B) {
	meters, rate := budget.NewMeters(1000), budget.Rate{PerSecond: 1e9, Burst: time.Second}
	for b.Loop() {
		meters.Of("vehicle").First.Take(1, rate, time.Second)
	}
}
