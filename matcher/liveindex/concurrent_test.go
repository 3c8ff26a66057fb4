package liveindex_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/stretchr/testify/require"
)

// roundView is vehicle i's view in a round: everything in it follows from the
// two, so that a mixture of two rounds is recognised. Vehicles roam far enough
// to cross cubes of every size, meet on one point now and then, and change
// attributes.
func roundView(i int, round int64) wire.View {
	rng := rand.New(rand.NewPCG(uint64(i), uint64(round)))
	v := wire.View{VehicleID: fmt.Sprintf("vehicle-%d", i), DeviceTimeMS: round + 1, SeenTimeMS: round * 3}
	if round%8 != 0 && rng.IntN(10) > 0 {
		scale := []float64{1e-6, 1e-3, 1, 80}[rng.IntN(4)]
		v.LatDeg, v.LonDeg = scale*rng.Float64(), scale*rng.Float64()
	}
	v.Counts.Accepted, v.Counts.SetAside = round*7, round*9
	v.HasAttributes = true
	v.Attributes = wire.Attributes{Type: "t", Seats: int32(round), Tags: []string{fmt.Sprint("r", round%5)}}
	return v
}

// TestOneMomentUnderMovement lets a writer move the whole fleet round after
// round, in order, while readers search. What was right after some update shows
// the first vehicles in one round and the rest in the round before, and each
// exactly once.
func TestOneMomentUnderMovement(t *testing.T) {
	const vehicles, readers, searches = 250, 3, 60
	x := liveindex.New(nil)
	for i := range vehicles {
		v := roundView(i, 0)
		require.NoError(t, x.Upsert(&v))
	}
	world, err := liveindex.NewViewport(-90, -180, 90, 180)
	require.NoError(t, err)
	var wg sync.WaitGroup
	var atWork atomic.Int32
	atWork.Store(readers)
	for r := range readers {
		wg.Go(func() {
			defer atWork.Add(-1)
			rng := rand.New(rand.NewPCG(9, uint64(r)))
			for range searches {
				hits := x.Nearest(liveindex.Query{LatDeg: rng.Float64(), LonDeg: rng.Float64(), MaxResults: 1000}, nil)
				if err := oneMoment(hits, vehicles); err != nil {
					t.Error(err)
					return
				}
				inside, _ := x.Within(world, liveindex.Filter{}, vehicles, nil)
				hits = hits[:0]
				for _, v := range inside {
					hits = append(hits, liveindex.Hit{Vehicle: v})
				}
				if err := oneMoment(hits, vehicles); err != nil {
					t.Errorf("within the world: %v", err)
					return
				}
				id := rng.IntN(vehicles)
				v, ok := x.Get(fmt.Sprintf("vehicle-%d", id))
				if want := roundView(id, v.DeviceTimeMS-1); !ok || v.LatDeg != want.LatDeg || int64(v.Counts.Accepted) != want.Counts.Accepted || v.Counts.SetAside != uint32(want.Counts.SetAside) || v.Attributes.Seats != want.Attributes.Seats {
					t.Errorf("torn vehicle %+v", v)
					return
				}
			}
		})
	}
	for round := int64(1); atWork.Load() > 0; round++ {
		for i := range vehicles {
			v := roundView(i, round)
			require.NoError(t, x.Upsert(&v))
		}
	}
	wg.Wait()
}

// oneMoment returns what is wrong with the answer to a search for the whole fleet.
func oneMoment(hits []liveindex.Hit, vehicles int) error {
	if len(hits) != vehicles {
		return fmt.Errorf("%d vehicles found of %d", len(hits), vehicles)
	}
	rounds := make([]int64, vehicles)
	last := -1.0
	for _, h := range hits {
		var i int
		if _, err := fmt.Sscanf(h.Vehicle.ID, "vehicle-%d", &i); err != nil {
			return err
		}
		if rounds[i] != 0 {
			return fmt.Errorf("vehicle %d found twice", i)
		}
		rounds[i] = h.Vehicle.DeviceTimeMS
		want := roundView(i, rounds[i]-1)
		if h.Vehicle.LatDeg != want.LatDeg || h.Vehicle.LonDeg != want.LonDeg || h.Vehicle.SeenTimeMS != want.SeenTimeMS ||
			int64(h.Vehicle.Counts.Accepted) != want.Counts.Accepted || h.Vehicle.Counts.SetAside != uint32(want.Counts.SetAside) || h.Vehicle.Attributes.Seats != want.Attributes.Seats || h.Vehicle.Attributes.Tags[0] != want.Attributes.Tags[0] {
			return fmt.Errorf("vehicle %d is torn: %+v", i, h.Vehicle)
		}
		if h.DistanceM < last {
			return fmt.Errorf("vehicle %d is out of order", i)
		}
		last = h.DistanceM
	}
	for i := 1; i < vehicles; i++ {
		if rounds[i] > rounds[i-1] || rounds[i] < rounds[0]-1 {
			return fmt.Errorf("not one moment: vehicle %d is in round %d, vehicle %d in round %d, vehicle 0 in round %d", i-1, rounds[i-1], i, rounds[i], rounds[0])
		}
	}
	return nil
}

// TestComingAndGoing checks that ids and numbers that are used again never mix
// vehicles up.
func TestComingAndGoing(t *testing.T) {
	const ids = 200
	x := liveindex.New(nil)
	var done atomic.Bool
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(r)))
			for !done.Load() {
				id := fmt.Sprintf("vehicle-%d", rng.IntN(ids))
				if v, ok := x.Get(id); ok && v.ID != id {
					t.Errorf("asked for %s, got %s", id, v.ID)
				}
				page, _ := x.Page("", ids, nil)
				for i := 1; i < len(page); i++ {
					if page[i].ID <= page[i-1].ID {
						t.Errorf("page out of order: %s after %s", page[i].ID, page[i-1].ID)
					}
				}
				seen := map[string]bool{}
				for _, h := range x.Nearest(liveindex.Query{MaxResults: ids}, nil) {
					if seen[h.Vehicle.ID] || h.Vehicle.ID == "" {
						t.Errorf("%q twice or empty", h.Vehicle.ID)
					}
					seen[h.Vehicle.ID] = true
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for n := range 10_000 {
		i := rng.IntN(ids)
		if rng.IntN(3) == 0 {
			x.Remove(fmt.Sprintf("vehicle-%d", i))
			continue
		}
		v := roundView(i, int64(n))
		require.NoError(t, x.Upsert(&v))
	}
	done.Store(true)
	wg.Wait()
}
