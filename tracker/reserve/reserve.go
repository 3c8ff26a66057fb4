// Package reserve decides the reservations of one vehicle. It is pure: the
// tracker's step calls it with the records of `locations` in the order of the
// log, and everything that it remembers is part of the vehicle's state.
//
// A proposal is decided once, by its first copy. A granted reservation never
// expires: only a release of the same attempt, or an operator's, ends it. What
// was decided, and a release that overtook its proposal, is remembered until
// stream time has passed the proposal's decide-by, after which no copy can be
// granted any more. So repeated, late and reordered copies change nothing. Only
// where stream time goes back, after a jump that the log's clock has taken back, a
// copy may be decided again; its owner has closed the attempt and releases it.
package reserve

import (
	"slices"

	"github.com/starling-fleet/starling/schemas/wire"
)

// Limits are the settings of the decision.
type Limits struct {
	// MaxDecideAheadMS is how far a decide-by may lie ahead of stream time, in
	// milliseconds.
	MaxDecideAheadMS int64
	// MaxRemembered is how many decisions of a vehicle are remembered at once;
	// beyond it proposals are refused.
	MaxRemembered int
}

// Outcome is what became of a proposal.
type Outcome uint8

// Outcomes. Ignored has decided nothing: the proposal is of another epoch.
const (
	Ignored Outcome = iota
	Granted
	Refused
	// Repeated: the attempt was decided, or released, before.
	Repeated
)

// Facts are what the decision reads of the vehicle, of its partition and of the
// record.
type Facts struct {
	// StreamMS is the partition's stream time, Epoch the log's and Offset the
	// record's.
	StreamMS, Epoch, Offset int64
	// Ready is true once every partition of `rides` has reasserted its promises
	// in this epoch.
	Ready bool
	// Dispatchable is true when the vehicle can be offered a ride, its
	// reservation not considered.
	Dispatchable bool
	// AgeMS is the age of the newest fix: the larger of that by append time and
	// that by the device's corrected clock, in milliseconds.
	AgeMS int64
}

// Vehicle is what is known of one vehicle's reservations. The zero value has
// none.
type Vehicle struct {
	// held is nil or the reservation; what it points to never changes. onBoard
	// is true if it was reasserted with the rider on board.
	held    *wire.Reservation
	onBoard bool
	// decided are the attempts that a copy can't change any more, oldest first.
	decided []decided
}

// decided is an attempt that was decided, until its decide-by has passed.
type decided struct {
	ride    string
	attempt wire.Attempt
	untilMS int64
}

// Held returns the reservation, nil if there is none. It must not be changed.
func (v *Vehicle) Held() *wire.Reservation { return v.held }

// Idle returns whether the vehicle has neither a reservation nor anything to
// remember, so that it may be forgotten at once.
func (v *Vehicle) Idle() bool { return v.held == nil && len(v.decided) == 0 }

// Propose decides a proposal.
func (v *Vehicle) Propose(p *wire.Proposal, f Facts, limits Limits) Outcome {
	v.Expire(f.StreamMS)
	switch {
	case p.Attempt.Epoch != f.Epoch:
		return Ignored
	case v.knows(p.Ride, p.Attempt):
		return Repeated
	case p.DecideByMS < f.StreamMS, p.DecideByMS > f.StreamMS+limits.MaxDecideAheadMS:
		// One that is too late stays so while stream time grows, and needs no
		// memory. One too far ahead is of an owner that read another stream time.
		return Refused
	case len(v.decided) >= limits.MaxRemembered:
		// Without memory a later copy could be granted: only its owner would
		// notice, and release it.
		return Refused
	}
	v.remember(decided{p.Ride, p.Attempt, p.DecideByMS})
	if v.held != nil || !f.Ready || !f.Dispatchable || f.AgeMS > p.MaxAgeMS {
		return Refused
	}
	v.held = &wire.Reservation{Ride: p.Ride, Attempt: p.Attempt, Fence: wire.Fence{Epoch: f.Epoch, Offset: f.Offset}}
	v.onBoard = false
	return Granted
}

// Release ends an attempt and returns whether that has freed the vehicle. A
// release that overtakes its proposal is remembered.
func (v *Vehicle) Release(r *wire.Release, f Facts, limits Limits) bool {
	v.Expire(f.StreamMS)
	if r.Operator {
		freed := v.held != nil
		v.held, v.onBoard = nil, false
		return freed
	}
	if v.held != nil && v.held.Ride == r.Ride && v.held.Attempt == r.Attempt {
		v.held, v.onBoard = nil, false
		return true
	}
	untilMS := min(r.DecideByMS, f.StreamMS+limits.MaxDecideAheadMS)
	if r.Attempt.Epoch == f.Epoch && untilMS >= f.StreamMS && !v.knows(r.Ride, r.Attempt) && len(v.decided) < limits.MaxRemembered {
		v.remember(decided{r.Ride, r.Attempt, untilMS})
	}
	return false
}

// Reassert takes a promise of an earlier epoch and returns whether it is what
// the vehicle is held by now. Of two promises of one vehicle the one with the
// rider on board stands, then the newer grant.
func (v *Vehicle) Reassert(p *wire.Promise) bool {
	r := p.Reservation
	if v.held != nil && (v.onBoard && !p.OnBoard || v.onBoard == p.OnBoard && !v.held.Fence.Before(r.Fence)) {
		return *v.held == r
	}
	v.held, v.onBoard = &r, p.OnBoard
	return true
}

// Expire forgets what can't be granted any more at a stream time. It leaves the
// memory of a copy of v alone.
func (v *Vehicle) Expire(streamMS int64) {
	over := func(d decided) bool { return d.untilMS < streamMS }
	if !slices.ContainsFunc(v.decided, over) {
		return
	}
	v.decided = slices.DeleteFunc(slices.Clone(v.decided), over)
	if len(v.decided) == 0 {
		v.decided = nil
	}
}

// Clear drops the reservation and all memory: what a new epoch does.
func (v *Vehicle) Clear() { *v = Vehicle{} }

// remember leaves the memory of a copy of v alone.
func (v *Vehicle) remember(d decided) { v.decided = append(slices.Clip(v.decided), d) }

func (v *Vehicle) knows(ride string, attempt wire.Attempt) bool {
	return slices.ContainsFunc(v.decided, func(d decided) bool { return d.ride == ride && d.attempt == attempt }) ||
		v.held != nil && v.held.Ride == ride && v.held.Attempt == attempt
}
