package life

import (
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// StateOf returns a ride as it is stored.
func StateOf(r *Ride) *starlingv1.RideState {
	return &starlingv1.RideState{
		Ride: r.Name, Sequence: r.Sequence, Phase: int32(r.Phase), Order: r.Order, Bound: storedBinding(r.Bound), Last: storedBinding(r.Last),
		ExpiresMs: r.ExpiresMS, Declined: r.Declined, EventMs: r.EventMS, Reason: r.Reason,
	}
}

// Restore puts a stored ride into the state.
func (s *State) Restore(m *starlingv1.RideState) {
	s.put(&Ride{
		Name: m.GetRide(), Sequence: m.GetSequence(), Phase: Phase(m.GetPhase()), Order: m.GetOrder(), Bound: bindingOf(m.GetBound()), Last: bindingOf(m.GetLast()),
		ExpiresMS: m.GetExpiresMs(), Declined: m.GetDeclined(), EventMS: m.GetEventMs(), Reason: m.GetReason(),
	})
}

// Adopt takes the rides and queues that another fold of the same partition has read
// further, and calls changed with each such ride.
func (s *State) Adopt(further *State, changed func(ride string)) {
	for name, r := range further.rides {
		if have := s.rides[name]; have == nil || have.Sequence < r.Sequence {
			s.put(r)
			changed(name)
		}
	}
	for zone, q := range further.queues {
		if have := s.queues[zone]; have == nil || have.Sequence < q.Sequence {
			s.putQueue(q)
		}
	}
}

func storedBinding(b *Binding) *starlingv1.RideBinding {
	if b == nil {
		return nil
	}
	return &starlingv1.RideBinding{VehicleId: b.VehicleID, Attempt: b.Attempt.ToProto(), Fence: b.Fence.ToProto()}
}

func bindingOf(m *starlingv1.RideBinding) *Binding {
	if m == nil {
		return nil
	}
	return &Binding{VehicleID: m.GetVehicleId(), Attempt: wire.AttemptFromProto(m.GetAttempt()), Fence: wire.FenceFromProto(m.GetFence())}
}
