package life_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func takeover(epoch int64, nonce uint64) *starlingv1.RideRecord {
	return &starlingv1.RideRecord{Epoch: epoch, Record: &starlingv1.RideRecord_Takeover{Takeover: &starlingv1.RideTakeover{Nonce: nonce}}}
}

func event(epoch, generation, sequence int64, kind starlingv1.RideEventKind) *starlingv1.RideRecord {
	return &starlingv1.RideRecord{Epoch: epoch, Generation: generation, Record: &starlingv1.RideRecord_Event{Event: &starlingv1.RideEvent{
		Ride: "r", Sequence: sequence, Kind: kind, VehicleId: "v", Attempt: &starlingv1.Attempt{Epoch: epoch, Generation: generation, Counter: 1},
	}}}
}

const (
	requested = starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED
	assigned  = starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED
	completed = starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED
	cancelled = starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED
)

func TestOnlyTheLastOwnersNextEventCounts(t *testing.T) {
	var s life.State
	require.Equal(t, life.Voided, s.Apply(0, event(1, 0, 1, requested)), "before any takeover")
	require.Equal(t, life.TookOver, s.Apply(1, takeover(1, 7)))
	require.Equal(t, life.Happened, s.Apply(2, event(1, 1, 1, requested)))
	require.Equal(t, life.OutOfSequence, s.Apply(3, event(1, 1, 1, requested)), "a late copy")
	require.Equal(t, life.OutOfSequence, s.Apply(4, event(1, 1, 3, assigned)), "a gap")
	require.Equal(t, life.Impossible, s.Apply(5, event(1, 1, 2, completed)))
	require.Equal(t, life.TookOver, s.Apply(6, takeover(1, 8)))
	require.Equal(t, life.Voided, s.Apply(7, event(1, 1, 2, assigned)), "of an owner that was replaced")
	require.Equal(t, life.Searching, s.Ride("r").Phase)
	require.Equal(t, life.Happened, s.Apply(8, event(1, 6, 2, assigned)))
	require.Equal(t, "v", s.Ride("r").Bound.VehicleID)
	require.Equal(t, life.TookOver, s.Apply(3, takeover(2, 9)), "offsets of a new epoch may repeat")
	require.Equal(t, life.Voided, s.Apply(9, takeover(1, 10)), "of an epoch that is over")
	require.Equal(t, life.Happened, s.Apply(4, event(2, 3, 3, cancelled)))
	require.Nil(t, s.Ride("r").Bound)
	require.Equal(t, "v", s.Ride("r").Last.VehicleID)
	s.Forget("r")
	require.Zero(t, s.Rides())
}

func TestTheTableReachesEveryPhaseAndEndsOnlyInEnds(t *testing.T) {
	reached := map[life.Phase]bool{life.None: true}
	for range life.Table() {
		for _, tr := range life.Table() {
			for _, from := range tr.From {
				require.False(t, from.Ended(), "%v happens to a ride that has ended", tr.Kind)
				reached[tr.To] = reached[tr.To] || reached[from]
			}
		}
	}
	for p := life.None; p <= life.VehicleLost; p++ {
		require.True(t, reached[p], "%v", p)
	}
}
