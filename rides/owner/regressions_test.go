package owner_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/owner"
)

// TestRegressions replays what the search has found before it was mended: what
// was wrong must not come back.
func TestRegressions(t *testing.T) {
	two := budget{takeovers: 9, raising: 1, unknown: 3, lost: 3, cancels: 3}
	for _, c := range []struct {
		name  string
		space scenario
		trace []action
	}{
		{
			// The completion of the last part counted as that of all: a vehicle of the
			// part that had failed was lost to its ride.
			name:  "a part of a restatement fails and the last one does not",
			space: scenario{rides: 2, vehicles: 2, leaders: []int{0}, bound: 2, maxPromisesBytes: 1, budget: two},
			trace: []action{
				{kind: raiseEpoch}, {kind: restart}, {kind: readTrack}, {kind: takeOver}, {kind: appendRide}, {kind: readRide},
				{kind: appendPlace, b: unknown}, {kind: appendPlace}, {kind: readTrack}, {report, 1, 2, 0}, {report, 0, 2, 0}, {kind: readTrack}, {kind: readTrack},
			},
		},
		{
			// What failed was made anew from what was promised by then, so the parts of
			// one generation did not agree: what had moved from one part to another
			// was in none that counted.
			name:  "a promise ends while a part of the restatement fails",
			space: scenario{rides: 4, vehicles: 4, leaders: []int{0}, bound: 4, maxPromisesBytes: 60, budget: two},
			trace: []action{
				{kind: raiseEpoch}, {kind: restart}, {kind: takeOver}, {kind: appendRide}, {kind: readRide}, {kind: appendPlace},
				{kind: cancel}, {kind: appendRide}, {kind: readRide}, {kind: appendPlace, b: lost},
				{kind: appendPlace}, {kind: appendPlace}, {kind: appendPlace},
			},
		},
		{
			// Every takeover that was not its own made an owner take over again, also
			// one behind which its own stood already: with two on their way it never
			// led again.
			name:  "a takeover of unknown outcome is in the log",
			space: scenario{rides: 2, vehicles: 1, budget: two},
			trace: []action{{kind: takeOver}, {kind: appendRide, b: unknown}, {kind: arrive}},
		},
		{
			name:  "two events fail at once",
			space: scenario{rides: 2, vehicles: 1, leaders: []int{0}, mode: owner.Offer, budget: two},
			trace: []action{
				{kind: cancel}, {kind: cancel, a: 1}, {kind: appendRide, b: unknown}, {kind: takeOver}, {kind: appendRide, b: unknown}, {kind: takeOver},
				{kind: appendRide}, {kind: appendRide},
			},
		},
		{
			// The watermark of an older epoch, whose offsets repeat, passed requests
			// that nobody had read.
			name:  "the requests' offsets begin anew",
			space: scenario{rides: 1, vehicles: 1, leaders: []int{0}, bound: 1, requestsLost: true, budget: two},
			trace: []action{{kind: raiseEpoch}, {kind: restart}, {kind: cancel}, {kind: takeOver}, {kind: appendRide}, {kind: readRide}},
		},
		{
			name:  "a record of the older epoch is read after the start",
			space: scenario{rides: 1, vehicles: 1, leaders: []int{0}, bound: 1, requestsLost: true, budget: two},
			trace: []action{{kind: cancel}, {kind: appendRide}, {kind: raiseEpoch}, {kind: restart}, {kind: readRide}, {kind: takeOver}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.space.withDefaults().fails(c.trace); err != nil {
				t.Fatalf("FOUND %s: %v", c.name, err)
			}
		})
	}
}

// A vehicle that an operator frees while it is being bound is noticed when the
// binding is read back: what was seen of it until then is kept.
func TestAVehicleFreedWhileItIsBoundIsNoticed(t *testing.T) {
	s := (scenario{rides: 1, vehicles: 1, leaders: []int{0}, budget: budget{proposals: 1, operators: 1}}).withDefaults()
	w, err := s.begin()
	require.NoError(t, err)
	w, err = w.replay([]action{{kind: propose}, {kind: appendPlace}, {kind: operatorEnds}, {kind: readTrack}, {kind: readTrack}, {kind: appendRide}, {kind: readRide}})
	require.NoError(t, err)
	require.Len(t, w.nodes[0].toRides, 1)
	e := w.nodes[0].toRides[0].ride.GetEvent()
	require.Equal(t, owner.ReasonReleased, e.GetReason())
	require.Equal(t, vehicleName(0), e.GetVehicleId())
}
