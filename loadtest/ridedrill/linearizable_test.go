package ridedrill

import (
	"testing"

	"github.com/stretchr/testify/require"

	findings "github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/loadtest/ridedrill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	searching = starlingv1.RidePhase_RIDE_PHASE_SEARCHING
	onBoard   = starlingv1.RidePhase_RIDE_PHASE_ON_BOARD
	completed = starlingv1.RidePhase_RIDE_PHASE_COMPLETED
	cancelled = starlingv1.RidePhase_RIDE_PHASE_CANCELLED
)

func asked(from, to, position int64) step {
	return step{kind: requestStep, callNS: from, returnNS: to, known: true, position: position}
}

func cancels(from, to, position int64) step {
	return step{kind: cancelStep, callNS: from, returnNS: to, known: true, position: position}
}

func gets(from, to, position int64, phase starlingv1.RidePhase) step {
	return step{kind: getStep, callNS: from, returnNS: to, known: true, position: position, found: phase != 0, phase: phase}
}

// waits is a get that was to wait for a position.
func waits(s step, after int64) step {
	s.after = after
	return s
}

// lost is a call whose answer did not come.
func lost(s step) step {
	s.known, s.position = false, 0
	return s
}

func TestHistoriesOfRides(t *testing.T) {
	for name, h := range map[string]struct {
		steps []step
		ok    bool
	}{
		"asked for, read, cancelled, read": {[]step{asked(0, 1, 4), gets(2, 3, 4, searching), cancels(4, 5, 9), gets(6, 7, 9, cancelled)}, true},
		"not there before it is asked for": {[]step{gets(0, 1, 0, 0), asked(2, 3, 0)}, true},
		"a get beside a cancellation":      {[]step{asked(0, 1, 4), cancels(2, 9, 6), gets(3, 4, 4, searching), gets(5, 6, 6, cancelled)}, true},
		"an answer that shows more":        {[]step{asked(0, 1, 4), cancels(2, 5, 6), waits(gets(3, 4, 5, cancelled), 4)}, true},
		"a lost request has its effect":    {[]step{lost(asked(0, 1, 0)), gets(2, 3, 0, 0), gets(4, 5, 1, searching)}, true},
		"a lost cancellation has none":     {[]step{asked(0, 1, 4), lost(cancels(2, 3, 0)), gets(4, 5, 4, completed)}, true},
		"too late to cancel":               {[]step{asked(0, 1, 4), cancels(2, 3, 6), gets(4, 5, 6, onBoard)}, true},
		"a request that is not seen":       {[]step{asked(0, 1, 4), gets(2, 3, 4, 0)}, false},
		"an answer that is too old":        {[]step{asked(0, 1, 4), waits(gets(2, 3, 3, searching), 4)}, false},
		"a ride from nowhere":              {[]step{gets(0, 1, 4, searching), asked(2, 3, 4)}, false},
		"a cancellation that is not seen":  {[]step{asked(0, 1, 4), cancels(2, 3, 6), gets(4, 5, 6, searching)}, false},
		"cancelled by nobody":              {[]step{asked(0, 1, 4), gets(2, 3, 4, cancelled)}, false},
		"cancelled before it was asked to": {[]step{asked(0, 1, 4), gets(2, 3, 4, cancelled), cancels(4, 5, 6)}, false},
		"positions against the time":       {[]step{asked(0, 1, 4), cancels(2, 3, 2)}, false},
		"cancelled, and then again not":    {[]step{asked(0, 1, 4), cancels(2, 9, 6), gets(3, 4, 6, cancelled), gets(5, 6, 6, searching)}, false},
	} {
		var f findings.Findings
		var v verdicts
		v.judge(&f, notLinearizableRide, name, rideModel, rideOperations(h.steps))
		require.Equal(t, h.ok, f.None(), "%s: %s", name, &f)
		require.EqualValues(t, len(h.steps), v.operations)
	}
}

// heardRide is a journey whose rider heard that it was bound to a vehicle and that
// it has ended.
func heardRide(h *history, name string, granted, boundNS, endedNS int64, end starlingv1.RideEventKind) *journey {
	j := h.begin(name)
	j.requestedNS = 0
	event := func(kind starlingv1.RideEventKind, atNS int64) {
		j.events = append(j.events, heardEvent{&starlingv1.RideEvent{
			Kind: kind, VehicleId: "v", Attempt: &starlingv1.Attempt{Counter: granted}, Fence: &starlingv1.Fence{Offset: granted},
		}, atNS})
	}
	event(starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED, boundNS)
	if endedNS > 0 {
		event(end, endedNS)
	}
	return j
}

func TestHistoriesOfVehicles(t *testing.T) {
	const (
		done = starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED
		gone = starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED
	)
	left := func(j *journey, atNS int64) {
		j.left[attemptKey("v", j.events[0].event.GetAttempt())] = atNS
	}
	for name, c := range map[string]struct {
		do func(h *history)
		ok bool
	}{
		"one ride after the other": {func(h *history) {
			left(heardRide(h, "a", 1, 10, 30, done), 20)
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, true},
		"the end is heard late": {func(h *history) {
			left(heardRide(h, "a", 1, 10, 70, done), 20)
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, true},
		"cancelled by the rider": {func(h *history) {
			heardRide(h, "a", 1, 10, 70, gone).leftNS = 20
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, true},
		"still driven when the next is bound": {func(h *history) {
			left(heardRide(h, "a", 1, 10, 70, done), 65)
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, false},
		"never ended": {func(h *history) {
			heardRide(h, "a", 1, 10, 0, done)
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, false},
		"against the order of the grants": {func(h *history) {
			left(heardRide(h, "a", 2, 10, 30, done), 20)
			left(heardRide(h, "b", 1, 40, 60, done), 50)
		}, false},
		"a loss was announced": {func(h *history) {
			heardRide(h, "a", 1, 10, 0, done).partial = true
			left(heardRide(h, "b", 2, 40, 60, done), 50)
		}, true},
	} {
		h := newHistory()
		c.do(h)
		var f findings.Findings
		var v verdicts
		for vehicle, ops := range vehicleOperations(h.journeys) {
			v.judge(&f, notLinearizableVehicle, vehicle, vehicleModel, ops)
		}
		require.Equal(t, c.ok, f.None(), "%s: %s", name, &f)
	}
}

// TestADrillMustShowSomething holds the account to its own bars.
func TestADrillMustShowSomething(t *testing.T) {
	a := Account{Options: DefaultOptions(), Totals: check.Totals{Ended: map[starlingv1.RideEventKind]int64{}}}
	a.conclude()
	require.Positive(t, a.Findings.Count("a drill that shows nothing"))
	require.Positive(t, a.Findings.Count("a drill with too little contention"))
	require.NotEmpty(t, a.Misses())
	a = Account{Options: DefaultOptions(), Totals: check.Totals{
		Proposals: 4, Lost: 2, Rides: 1, Heard: 1, Ended: map[starlingv1.RideEventKind]int64{starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED: 1},
	}}
	a.conclude()
	require.Empty(t, a.Misses(), "%s", &a.Findings)
	o := DefaultOptions()
	require.ErrorContains(t, o.Validate(), "binary")
}
