package liveindex_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
)

// walk returns the ids of a whole walk by pages.
func walk(x *liveindex.Index, pageSize int) (ids []string) {
	after := ""
	for {
		page, next := x.Page(after, pageSize, nil)
		for _, v := range page {
			ids = append(ids, v.ID)
		}
		if next == "" {
			return ids
		}
		after = next
	}
}

// Vehicles come and go in every order, thousands of them: a walk shows those
// that are there, in order, wherever its pages end.
func TestPagesOfALargeFleet(t *testing.T) {
	for _, come := range []string{"in order", "backwards", "at random"} {
		rng := rand.New(rand.NewPCG(1, 2))
		numbers := make([]int, 2000)
		for i := range numbers {
			numbers[i] = i
		}
		switch come {
		case "backwards":
			slices.Reverse(numbers)
		case "at random":
			rng.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
		}
		x, there := liveindex.New(nil), map[string]bool{}
		check := func() {
			t.Helper()
			var want []string
			for id := range there {
				want = append(want, id)
			}
			slices.Sort(want)
			for _, size := range []int{1 + rng.IntN(300), 1000, 10_000} {
				require.Equal(t, want, walk(x, size), "vehicles come %s, pages of %d", come, size)
			}
		}
		for i, n := range numbers {
			id := fmt.Sprintf("v%05d", n)
			require.NoError(t, x.Upsert(&wire.View{VehicleID: id}))
			there[id] = true
			if i%500 == 499 {
				check()
			}
		}
		rng.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
		for i, n := range numbers {
			id := fmt.Sprintf("v%05d", n)
			require.True(t, x.Remove(id))
			delete(there, id)
			if rng.IntN(10) == 0 { // comes back
				require.NoError(t, x.Upsert(&wire.View{VehicleID: id}))
				there[id] = true
			}
			if i%500 == 499 {
				check()
			}
		}
	}
}

// A vehicle that is there all the while is on exactly one page of a walk, though others
// come and go around them.
func TestPagesWhileVehiclesComeAndGo(t *testing.T) {
	x := liveindex.New(nil)
	var stay []string
	for i := range 3000 {
		if id := fmt.Sprintf("v%05d", i); i%3 == 0 {
			stay = append(stay, id)
			require.NoError(t, x.Upsert(&wire.View{VehicleID: id}))
		}
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		rng := rand.New(rand.NewPCG(3, 4))
		for {
			select {
			case <-stop:
				return
			default:
			}
			if n := rng.IntN(3000); n%3 != 0 {
				id := fmt.Sprintf("v%05d", n)
				if !x.Remove(id) {
					_ = x.Upsert(&wire.View{VehicleID: id})
				}
			}
		}
	})
	for i := range 40 {
		ids := walk(x, 50+i*20)
		require.True(t, slices.IsSorted(ids))
		var stayed []string
		for _, id := range ids {
			if _, found := slices.BinarySearch(stay, id); found {
				stayed = append(stayed, id)
			}
		}
		if !slices.Equal(stay, stayed) {
			t.Errorf("walk %d shows %d of %d vehicles that were there all the while", i, len(stayed), len(stay))
			break
		}
	}
	close(stop)
	writer.Wait()
}

// BenchmarkPage reads pages of 1,000 vehicles.
func BenchmarkPage(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint("fleet=", n), func(b *testing.B) {
			x, _ := build(b, layouts[0], n)
			var page []liveindex.Vehicle
			after := ""
			for b.Loop() {
				page, after = x.Page(after, 1000, page[:0])
			}
		})
	}
}

// BenchmarkInsert makes vehicles known, in random order of their ids.
func BenchmarkInsert(b *testing.B) {
	x, rng := liveindex.New(nil), rand.New(rand.NewPCG(1, 2))
	for i := 0; b.Loop(); i++ {
		v := fleetView(rng, layouts[0], int(uint32(i)*2654435761%10_000_000))
		if err := x.Upsert(&v); err != nil {
			b.Fatal(err)
		}
	}
}
