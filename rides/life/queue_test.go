package life_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func change(epoch, generation, sequence int64, joined []string, left ...string) *starlingv1.RideRecord {
	c := &starlingv1.ZoneChange{Zone: "z", Sequence: sequence, TimeMs: 5, Joined: joined}
	for _, v := range left {
		c.Left = append(c.Left, &starlingv1.ZoneDeparture{VehicleId: v})
	}
	return &starlingv1.RideRecord{Epoch: epoch, Generation: generation, RequestsBelow: 9, Record: &starlingv1.RideRecord_ZoneChange{ZoneChange: c}}
}

func vehicles(q *life.Queue) []string {
	var ids []string
	for _, p := range q.Places {
		ids = append(ids, p.VehicleID)
	}
	return ids
}

func TestOnlyTheLastOwnersNextChangeOfAQueueCounts(t *testing.T) {
	var s life.State
	require.Equal(t, life.Voided, s.Apply(0, change(1, 0, 1, []string{"a"})), "before any takeover")
	require.Equal(t, life.TookOver, s.Apply(1, takeover(1, 7)))
	require.Equal(t, life.QueueChanged, s.Apply(2, change(1, 1, 1, []string{"a", "b"})))
	require.EqualValues(t, 9, s.RequestsBelow)
	require.Equal(t, life.OutOfSequence, s.Apply(3, change(1, 1, 1, []string{"a", "b"})), "a late copy")
	require.Equal(t, life.OutOfSequence, s.Apply(4, change(1, 1, 3, []string{"c"})), "a gap")
	require.Equal(t, life.Impossible, s.Apply(5, change(1, 1, 2, []string{"b"})), "it waits already")
	require.Equal(t, life.Impossible, s.Apply(6, change(1, 1, 2, nil, "c")), "it does not wait")
	before := s.Queue("z")
	require.Equal(t, life.QueueChanged, s.Apply(7, change(1, 1, 2, []string{"a", "c"}, "a")))
	require.Equal(t, []string{"a", "b"}, vehicles(before), "what was read stays as it was")
	require.Equal(t, []string{"b", "a", "c"}, vehicles(s.Queue("z")), "who comes back stands at the end")
	require.Equal(t, life.Place{VehicleID: "c", JoinedOffset: 7, JoinedMS: 5}, s.Queue("z").Places[2])
	require.Equal(t, life.TookOver, s.Apply(8, takeover(1, 8)))
	require.Equal(t, life.Voided, s.Apply(9, change(1, 1, 3, []string{"d"})), "of an owner that was replaced")
	require.Equal(t, life.QueueChanged, s.Apply(10, change(1, 8, 3, []string{"d"})))
}

// Whatever is appended, a queue is what a list makes of the changes that counted,
// also when the state was stored and loaded between them.
func TestAQueueIsWhatAListMakesOfIt(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s life.State
	s.Apply(0, takeover(1, 1))
	var want []string
	sequence := int64(0)
	for offset := int64(1); offset < 5000; offset++ {
		v := fmt.Sprint("v", rng.IntN(30))
		at := slices.Index(want, v)
		record := change(1, 0, sequence+1, []string{v})
		if at >= 0 {
			record = change(1, 0, sequence+1, nil, v)
		}
		if rng.IntN(10) == 0 {
			record.GetZoneChange().Sequence += int64(rng.IntN(3) - 1)
		}
		if s.Apply(offset, record) == life.QueueChanged {
			sequence++
			if at >= 0 {
				want = slices.Delete(want, at, at+1)
			} else {
				want = append(want, v)
			}
		}
		if rng.IntN(50) == 0 {
			stored := life.StateOfQueue(s.Queue("z"))
			s = life.State{Owner: s.Owner}
			s.RestoreQueue(stored)
		}
		require.Equal(t, want, vehicles(s.Queue("z")))
	}
	require.Greater(t, sequence, int64(3000))
}
