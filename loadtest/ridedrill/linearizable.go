package ridedrill

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	findings "github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Findings of the clients' histories.
const (
	notLinearizableRide    = "a ride's history that is not linearizable"
	notLinearizableVehicle = "a vehicle's history that is not linearizable"
)

// porcupineLimit bounds the search of one history.
const porcupineLimit = 20 * time.Second

// verdicts counts histories by the outcome of their search.
type verdicts struct{ linearizable, undecided, operations int64 }

func (v verdicts) String() string {
	return fmt.Sprintf("%d linearizable, %d undecided after %v, %d operations", v.linearizable, v.undecided, porcupineLimit, v.operations)
}

func (v *verdicts) judge(f *findings.Findings, kind, name string, model porcupine.Model, ops []porcupine.Operation) {
	v.operations += int64(len(ops))
	switch porcupine.CheckOperationsTimeout(model, ops, porcupineLimit) {
	case porcupine.Ok:
		v.linearizable++
	case porcupine.Unknown:
		v.undecided++
	case porcupine.Illegal:
		const shown = 12
		f.Add(kind, "%s, %d operations: %v", name, len(ops), ops[:min(len(ops), shown)])
	}
}

// rideState is a ride as the calls about it make it, whoever reads it.
type rideState struct {
	// position is that of the last acknowledged call.
	position int64
	// requested and cancelled are set by calls in the log; maybe by such whose
	// answer was lost.
	requested, cancelled bool
}

// rideModel: calls take effect in the order of their positions in the log, each
// between its call and its answer. A get with the position of the last
// acknowledged call shows the effect of every call before it: a ride that was
// asked for is found, one that was cancelled has ended or is on board, and nothing
// is cancelled that nobody cancelled. It says that it has read as far as was asked;
// it may show the effect of a later call, too.
var rideModel = porcupine.Model{
	Init: func() any { return rideState{position: -1} },
	Step: func(state, _, output any) (bool, any) {
		s, in := state.(rideState), output.(step)
		switch in.kind {
		case getStep:
			return s.allows(in), s
		case requestStep:
			s.requested = true
		case cancelStep:
			s.requested, s.cancelled = true, true
		}
		if !in.known {
			return true, s
		}
		ok := in.position > s.position
		s.position = in.position
		return ok, s
	},
}

func (s rideState) allows(get step) bool {
	if !get.found {
		return !s.requested
	}
	ended := get.phase >= starlingv1.RidePhase_RIDE_PHASE_COMPLETED
	onBoard := get.phase == starlingv1.RidePhase_RIDE_PHASE_ON_BOARD
	switch {
	case !s.requested, get.position < get.after:
		return false
	case get.phase == starlingv1.RidePhase_RIDE_PHASE_CANCELLED:
		return s.cancelled
	}
	return !s.cancelled || ended || onBoard
}

// rideOperations are the steps of a ride. One whose answer was lost may take
// effect at any time later, or never, which at the end of time is the same.
func rideOperations(steps []step) []porcupine.Operation {
	ops := make([]porcupine.Operation, 0, len(steps))
	for _, s := range steps {
		if !s.known {
			s.returnNS = math.MaxInt64
		}
		ops = append(ops, porcupine.Operation{Call: s.callNS, Output: s, Return: s.returnNS})
	}
	return ops
}

// hold is an operation on a vehicle: it is bound to an attempt, or is free of it.
type hold struct {
	binds bool
	ride  string
	// granted orders bindings, (epoch, offset).
	granted [2]int64
	callNS  int64
	seenNS  int64
}

// vehicleModel: a vehicle is bound to one attempt at a time, in the order of the
// grants.
var vehicleModel = porcupine.Model{
	Init: func() any { return vehicleState{} },
	Step: func(state, _, output any) (bool, any) {
		s, h := state.(vehicleState), output.(hold)
		if h.binds {
			later := h.granted[0] > s.granted[0] || h.granted[0] == s.granted[0] && h.granted[1] > s.granted[1]
			return s.ride == "" && (later || s.granted == [2]int64{}), vehicleState{h.ride, h.granted}
		}
		return s.ride == h.ride && s.granted == h.granted, vehicleState{"", s.granted}
	},
}

type vehicleState struct {
	ride    string
	granted [2]int64
}

// vehicleOperations are the bindings of all vehicles as the riders heard of them.
// A binding begins at the earliest when its ride was called for, and at the latest
// when its rider heard of it; it ends at the earliest when its driver or rider
// asked for that (else when it began), and at the latest when its rider heard.
func vehicleOperations(journeys map[string]*journey) map[string][]porcupine.Operation {
	all := make(map[string][]porcupine.Operation)
	for _, j := range journeys {
		if j.partial {
			continue
		}
		var open *hold
		var vehicle string
		for _, e := range j.events {
			binds := e.event.GetKind() == starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED ||
				e.event.GetKind() == starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED
			switch {
			case binds && open == nil:
				vehicle = e.event.GetVehicleId()
				open = &hold{
					binds: true, ride: j.name, granted: [2]int64{e.event.GetFence().GetEpoch(), e.event.GetFence().GetOffset()},
					callNS: j.requestedNS, seenNS: e.atNS,
				}
				all[vehicle] = append(all[vehicle], open.operation())
			case open != nil && ends(e.event.GetKind()):
				free := *open
				free.binds, free.seenNS, free.callNS = false, e.atNS, j.leavesAt(e.event, open)
				all[vehicle] = append(all[vehicle], free.operation())
				open = nil
			}
		}
	}
	for _, ops := range all {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	}
	return all
}

// leavesAt is when somebody first asked for what an event has ended.
func (j *journey) leavesAt(e *starlingv1.RideEvent, open *hold) int64 {
	at, asked := j.left[attemptKey(e.GetVehicleId(), e.GetAttempt())]
	cancelledFirst := j.leftNS != 0 && (!asked || j.leftNS < at)
	switch {
	case cancelledFirst && e.GetKind() == starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED:
		return j.leftNS
	case asked && e.GetKind() != starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED:
		return at
	}
	return open.callNS
}

func ends(k starlingv1.RideEventKind) bool {
	switch k {
	case starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED, starlingv1.RideEventKind_RIDE_EVENT_KIND_UNASSIGNED,
		starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED, starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED,
		starlingv1.RideEventKind_RIDE_EVENT_KIND_VEHICLE_LOST:
		return true
	}
	return false
}

func (h *hold) operation() porcupine.Operation {
	return porcupine.Operation{Call: h.callNS, Output: *h, Return: h.seenNS}
}
