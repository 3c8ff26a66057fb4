package reserve_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

var (
	small    = rapid.Int64Range(0, 3)
	attempts = rapid.Custom(func(t *rapid.T) wire.Attempt {
		return wire.Attempt{Epoch: rapid.SampledFrom([]int64{1, 2, 2, 2}).Draw(t, "epoch"), Generation: small.Draw(t, "generation"), Counter: small.Draw(t, "counter")}
	})
	rides        = rapid.SampledFrom([]string{"", "a", "a long name of a ride"})
	reservations = rapid.Custom(func(t *rapid.T) wire.Reservation {
		return wire.Reservation{
			Ride: rides.Draw(t, "ride"), Attempt: attempts.Draw(t, "attempt"),
			Fence: wire.Fence{Epoch: small.Draw(t, "fence's epoch"), Offset: small.Draw(t, "fence's offset")},
		}
	})
	promises = rapid.Custom(func(t *rapid.T) wire.Promise {
		return wire.Promise{VehicleID: rides.Draw(t, "vehicle"), Reservation: reservations.Draw(t, "reservation"), OnBoard: rapid.Bool().Draw(t, "on board")}
	})
)

var limits = reserve.Limits{MaxDecideAheadMS: 2, MaxRemembered: 6}

// step does something to a vehicle.
func step(t *rapid.T, v *reserve.Vehicle, streamMS, offset int64) {
	facts := reserve.Facts{StreamMS: streamMS, Epoch: 2, Offset: offset, Ready: rapid.Bool().Draw(t, "ready"), Dispatchable: rapid.Bool().Draw(t, "dispatchable")}
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	default:
		v.Propose(&wire.Proposal{Ride: rides.Draw(t, "ride"), Attempt: attempts.Draw(t, "attempt"), DecideByMS: streamMS + small.Draw(t, "decide by") - 1}, facts, limits)
	case 1:
		v.Release(&wire.Release{
			Ride: rides.Draw(t, "ride"), Attempt: attempts.Draw(t, "attempt"), DecideByMS: streamMS + small.Draw(t, "decide by") - 1,
			Operator: rapid.Bool().Draw(t, "operator"),
		}, facts, limits)
	case 2:
		p := promises.Draw(t, "promise")
		v.Reassert(&p)
	case 3:
		v.Expire(streamMS)
	}
}

// What is decoded is what was encoded, and goes on alike.
func TestVehicleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v reserve.Vehicle
		for i := range rapid.IntRange(0, 12).Draw(t, "steps") {
			step(t, &v, int64(i/3), int64(i))
		}
		decoded, err := reserve.DecodeVehicle(v.Append(nil))
		require.NoError(t, err)
		require.Equal(t, v, decoded)
	})
}

// A copy of a vehicle's state is not changed by what happens to another copy: it
// is a value, of which snapshots may be kept.
func TestCopiesAreIndependent(t *testing.T) {
	facts := reserve.Facts{Epoch: 1, Ready: true}
	propose := func(v *reserve.Vehicle, counter int64) {
		outcome := v.Propose(&wire.Proposal{Ride: "r", Attempt: wire.Attempt{Epoch: 1, Counter: counter}}, facts, limits)
		require.Equal(t, reserve.Refused, outcome)
	}
	release := func(v *reserve.Vehicle, counter int64) {
		v.Release(&wire.Release{Ride: "r", Attempt: wire.Attempt{Epoch: 1, Counter: counter}}, facts, limits)
	}
	for remembered := range int64(5) {
		for _, another := range []func(*reserve.Vehicle, int64){propose, release} {
			var v reserve.Vehicle
			for counter := range remembered {
				propose(&v, counter)
			}
			first, second := v, v
			another(&first, 10)
			after := first.Append(nil)
			another(&second, 11)
			require.Equal(t, after, first.Append(nil), "with %d remembered", remembered)
		}
	}
}

// Nobody but a release of its attempt, or an operator's, takes a reservation
// away, and memory stays bounded.
func TestAReservationStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v reserve.Vehicle
		held := v.Held()
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			streamMS := int64(i)
			facts := reserve.Facts{StreamMS: streamMS, Epoch: 1, Offset: int64(i), Ready: true, Dispatchable: true}
			p := wire.Proposal{Ride: rides.Draw(t, "ride"), Attempt: wire.Attempt{Epoch: 1, Counter: small.Draw(t, "counter")}, DecideByMS: streamMS + 1}
			if rapid.Bool().Draw(t, "propose") {
				outcome := v.Propose(&p, facts, limits)
				require.False(t, outcome == reserve.Granted && held != nil, "granted although it was held")
				if held != nil {
					require.Equal(t, held, v.Held())
				}
			} else {
				its := held != nil && held.Ride == p.Ride && held.Attempt == p.Attempt
				freed := v.Release(&wire.Release{Ride: p.Ride, Attempt: p.Attempt, DecideByMS: streamMS + 1}, facts, limits)
				require.Equal(t, its, freed)
				if !its {
					require.Equal(t, held, v.Held())
				}
			}
			held = v.Held()
			require.Less(t, len(v.Append(nil)), 400, "memory is bounded")
		}
	})
}

// The order of parts, their copies and those of other generations don't change
// what counts: the promises of one whole generation.
func TestAssertionsCountOnlyWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a reserve.Assertions
		parts := rapid.Int32Range(1, 4).Draw(t, "parts")
		promise := func(generation int64, part int32) wire.Promise {
			return wire.Promise{VehicleID: fmt.Sprintf("%d of %d", part, generation)}
		}
		seen := map[int64]map[int32]bool{}
		newest := int64(-1)
		for range rapid.IntRange(1, 30).Draw(t, "records") {
			generation, part := small.Draw(t, "generation"), rapid.Int32Range(0, parts-1).Draw(t, "part")
			counted := a.Add(&wire.Reasserted{Epoch: 1, Generation: generation, Part: part, Parts: parts, Promises: []wire.Promise{promise(generation, part)}}, 1, 1)
			if seen[generation] == nil {
				seen[generation] = map[int32]bool{}
			}
			if generation >= newest {
				newest = generation
				seen[generation][part] = true
			}
			whole := generation == newest && len(seen[generation]) == int(parts)
			require.Equal(t, whole, a.Ready(1))
			decoded, err := reserve.DecodeAssertions(a.Append(nil))
			require.NoError(t, err)
			require.Equal(t, a.Append(nil), decoded.Append(nil))
			if whole {
				require.Len(t, counted, int(parts))
				for i, p := range counted {
					require.Equal(t, promise(generation, int32(i)), p)
				}
				require.Nil(t, a.Add(&wire.Reasserted{Epoch: 1, Generation: generation + 1, Parts: 1}, 1, 1), "the first counts")
				return
			}
			require.Nil(t, counted)
		}
	})
}

func FuzzDecodeVehicle(f *testing.F) {
	var v reserve.Vehicle
	f.Add(v.Append(nil))
	v.Propose(&wire.Proposal{Ride: "r", Attempt: wire.Attempt{Epoch: 1}}, reserve.Facts{Epoch: 1, Ready: true, Dispatchable: true}, limits)
	f.Add(v.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := reserve.DecodeVehicle(b)
		if err != nil {
			return
		}
		again, err := reserve.DecodeVehicle(v.Append(nil))
		require.NoError(t, err)
		require.Equal(t, v, again)
		v.Propose(&wire.Proposal{Ride: "r", Attempt: wire.Attempt{Epoch: 1}}, reserve.Facts{Epoch: 1, Ready: true, Dispatchable: true}, limits)
	})
}

func FuzzDecodeAssertions(f *testing.F) {
	var a reserve.Assertions
	a.Add(&wire.Reasserted{Epoch: 1, Parts: 2, Promises: []wire.Promise{{VehicleID: "v", OnBoard: true}}}, 1, 2)
	a.Add(&wire.Reasserted{Epoch: 1, RidesPartition: 1, Parts: 1}, 1, 2)
	f.Add(a.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := reserve.DecodeAssertions(b)
		if err != nil {
			return
		}
		again, err := reserve.DecodeAssertions(a.Append(nil))
		require.NoError(t, err)
		require.Equal(t, a, again)
		a.Add(&wire.Reasserted{Epoch: 1, Parts: 1}, 1, 2)
		a.Ready(2)
	})
}
