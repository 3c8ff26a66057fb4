package rides

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func upTo(sequence int64) *starlingv1.RideEventAndRide {
	return &starlingv1.RideEventAndRide{Event: &starlingv1.RideEvent{Sequence: sequence}, Ride: &starlingv1.Ride{Sequence: sequence}}
}

// rung returns whether a follower who waits is woken.
func rung(more <-chan struct{}) bool {
	select {
	case <-more:
		return true
	default:
		return false
	}
}

// Two follow a ride at a node. In doubt one of them asks; the other, who has looked
// in the middle and seen nothing to ask for, is woken by what the answer shows.
func TestTheAnswerToOneFollowerWakesTheOthers(t *testing.T) {
	known := func() *feed {
		f := &feed{ride: "a", filling: make(chan struct{}, 1), bell: newBell()}
		_, _, err := f.merge(&starlingv1.ResumeRideResponse{Recovered: true, Events: []*starlingv1.RideEventAndRide{upTo(1)}, Ride: upTo(1).Ride}, 0, 0)
		require.NoError(t, err)
		return f
	}
	t.Run("with events", func(t *testing.T) {
		f := known()
		_, ask, more := f.next(1)
		require.False(t, ask)
		_, _, err := f.merge(&starlingv1.ResumeRideResponse{Recovered: true, Events: []*starlingv1.RideEventAndRide{upTo(2)}, Ride: upTo(2).Ride}, 1, 0)
		require.NoError(t, err)
		require.True(t, rung(more))
		steps, ask, _ := f.next(1)
		require.False(t, ask)
		require.Len(t, steps, 1)
	})
	t.Run("with the ride as it stands", func(t *testing.T) {
		f := known()
		_, _, more := f.next(1)
		snapshot, found, err := f.merge(&starlingv1.ResumeRideResponse{Ride: upTo(3).Ride}, none, 0)
		require.NoError(t, err)
		require.True(t, found)
		require.EqualValues(t, 3, snapshot.GetSequence())
		require.True(t, rung(more))
		_, ask, _ := f.next(1)
		require.True(t, ask)
	})
	t.Run("with nothing new", func(t *testing.T) {
		f := known()
		_, _, more := f.next(1)
		_, _, err := f.merge(&starlingv1.ResumeRideResponse{Recovered: true, Ride: upTo(1).Ride}, 1, 0)
		require.NoError(t, err)
		require.False(t, rung(more))
	})
}
