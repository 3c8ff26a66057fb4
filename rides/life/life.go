// Package life is the state of a partition of `rides`: the fold of its records into
// the state of its rides. It is pure, and every reader that folds the same
// records has the same state, whoever wrote them and whatever else was appended
// by owners that had been replaced.
package life

import (
	"maps"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Binding is a vehicle that is bound to a ride.
type Binding struct {
	VehicleID string
	Attempt   wire.Attempt
	Fence     wire.Fence
}

// Ride is the state of one ride. Apply replaces it and never changes it, so it
// may be shared.
type Ride struct {
	Name     string
	Sequence int64
	Phase    Phase
	// Order is what was asked for; of a ride that was cancelled before its
	// request came it has only the rider. It must not be changed.
	Order *starlingv1.RideOrder
	// Bound is the vehicle in the phases that have one, otherwise nil; it must
	// not be changed.
	Bound *Binding
	// ExpiresMS is when the offer ends, by the owner's clock in milliseconds
	// since the Unix epoch, in the phase Offered.
	ExpiresMS int64
	// Declined are the vehicles that are not to be asked again.
	Declined []string
	// Last is the last binding that ended: its vehicle may still be held. Nil if
	// none ever did.
	Last *Binding
	// EventMS is the time of the last event by the owner's clock.
	EventMS int64
	// Reason is the last event's.
	Reason string
}

// Owner is who may write to the partition: the last takeover.
type Owner struct {
	Epoch, Generation int64
	Nonce             uint64
	Address           string
}

// Before returns whether o was replaced by other.
func (o Owner) Before(other Owner) bool {
	return o.Epoch < other.Epoch || o.Epoch == other.Epoch && o.Generation < other.Generation
}

// State is the fold of one partition of `rides`. The zero value has read
// nothing. It is not safe for concurrent use.
type State struct {
	Owner Owner
	// RequestsBelow is the offset in `ride-requests` below which every request
	// has had its effect.
	RequestsBelow int64
	rides         map[string]*Ride
	// active are those of them that have not ended: what owners look at again and
	// again, while those that have ended are kept for a day.
	active map[string]*Ride
	// sortedActive are they by name; nil when they have to be sorted again. It is
	// never changed.
	sortedActive []*Ride
	queues       map[string]*Queue // by zone
}

// Verdict is what Apply has done with a record.
type Verdict uint8

// Verdicts.
const (
	// TookOver: a new owner.
	TookOver Verdict = iota
	// Happened: the event counts.
	Happened
	// Voided: the writer had been replaced, or is of an earlier epoch.
	Voided
	// OutOfSequence: the event is not its ride's next.
	OutOfSequence
	// Impossible: the table does not allow it, which only a fault of the writer
	// makes.
	Impossible
	// QueueChanged: vehicles joined or left the queue of a zone.
	QueueChanged
)

// Ride returns a ride, nil if there is none of that name.
func (s *State) Ride(name string) *Ride { return s.rides[name] }

// Rides returns how many there are.
func (s *State) Rides() int { return len(s.rides) }

// Each calls fn for every ride, in no set order. fn may forget it.
func (s *State) Each(fn func(*Ride)) {
	for _, r := range s.rides {
		fn(r)
	}
}

// Active returns how many rides have not ended.
func (s *State) Active() int { return len(s.active) }

// SortedActive returns the rides that have not ended, by name. They are sorted again
// only after a change: owners look many times a second. The slice must not be
// changed.
func (s *State) SortedActive() []*Ride {
	if s.sortedActive == nil {
		s.sortedActive = sorted(s.active)
	}
	return s.sortedActive
}

// Sorted returns all rides by name.
func (s *State) Sorted() []*Ride { return sorted(s.rides) }

// put makes r the ride of its name.
func (s *State) put(r *Ride) {
	if s.rides == nil {
		s.rides, s.active = make(map[string]*Ride), make(map[string]*Ride)
	}
	s.rides[r.Name], s.sortedActive = r, nil
	if r.Phase.Ended() {
		delete(s.active, r.Name)
	} else {
		s.active[r.Name] = r
	}
}

func sorted(rides map[string]*Ride) []*Ride {
	return slices.SortedFunc(maps.Values(rides), func(a, b *Ride) int { return strings.Compare(a.Name, b.Name) })
}

// Forget drops a ride that has ended.
func (s *State) Forget(name string) {
	if r := s.rides[name]; r != nil && r.Phase.Ended() {
		delete(s.rides, name)
	}
}

// Clone returns an independent copy.
func (s *State) Clone() State {
	c := *s
	c.rides, c.active, c.queues = maps.Clone(s.rides), maps.Clone(s.active), maps.Clone(s.queues)
	return c
}

// Apply takes the partition's next record. Only TookOver and Happened change the
// state.
func (s *State) Apply(offset int64, r *starlingv1.RideRecord) Verdict {
	if takeover := r.GetTakeover(); takeover != nil {
		owner := Owner{r.GetEpoch(), offset, takeover.GetNonce(), takeover.GetAddress()}
		if owner.Before(s.Owner) {
			return Voided
		}
		if owner.Epoch > s.Owner.Epoch {
			s.RequestsBelow = 0 // offsets of a new epoch may repeat
		}
		s.Owner = owner
		s.RequestsBelow = max(s.RequestsBelow, r.GetRequestsBelow())
		return TookOver
	}
	if r.GetEpoch() != s.Owner.Epoch || r.GetGeneration() != s.Owner.Generation {
		return Voided
	}
	var verdict Verdict
	if c := r.GetZoneChange(); c != nil {
		verdict = s.change(offset, c)
	} else {
		verdict = s.happen(r.GetEvent())
	}
	if verdict == Happened || verdict == QueueChanged {
		s.RequestsBelow = max(s.RequestsBelow, r.GetRequestsBelow())
	}
	return verdict
}

func (s *State) happen(e *starlingv1.RideEvent) Verdict {
	var before Ride
	if r := s.rides[e.GetRide()]; r != nil {
		before = *r
	}
	if e.GetSequence() != before.Sequence+1 {
		return OutOfSequence
	}
	t, ok := transitions[e.GetKind()][before.Phase]
	if !ok {
		return Impossible
	}
	after := before
	after.Name, after.Sequence, after.Phase = e.GetRide(), e.GetSequence(), t.To
	after.EventMS, after.Reason, after.ExpiresMS = e.GetTimeMs(), e.GetReason(), e.GetExpiresMs()
	if before.Phase == None {
		after.Order = e.GetOrder()
	}
	switch {
	case t.binds(before.Phase):
		after.Bound = &Binding{e.GetVehicleId(), wire.AttemptFromProto(e.GetAttempt()), wire.FenceFromProto(e.GetFence())}
	case t.unbinds(before.Phase):
		after.Last, after.Bound = before.Bound, nil
		if t.To == Searching && !slices.Contains(before.Declined, before.Bound.VehicleID) {
			after.Declined = append(slices.Clip(before.Declined), before.Bound.VehicleID)
		}
	}
	s.put(&after)
	return Happened
}
