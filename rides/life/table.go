package life

import "github.com/starling-fleet/starling/schemas/starlingv1"

// Phase is where a ride stands.
type Phase uint8

// Phases of a ride. None is that of a name without a ride.
const (
	None Phase = iota
	Searching
	Offered
	Assigned
	Arriving
	Arrived
	OnBoard
	Completed
	Cancelled
	NoVehicle
	VehicleLost
)

var phaseNames = [...]string{"none", "searching", "offered", "assigned", "arriving", "arrived", "on board", "completed", "cancelled", "no vehicle", "vehicle lost"}

func (p Phase) String() string { return phaseNames[p] }

// Ended returns whether nothing can happen to the ride any more.
func (p Phase) Ended() bool { return p >= Completed }

// Bound returns whether a vehicle is bound to the ride.
func (p Phase) Bound() bool { return p >= Offered && p <= OnBoard }

// Transition is what one kind of event does: it may come in the phases From and
// leads to To.
type Transition struct {
	Kind starlingv1.RideEventKind
	From []Phase
	To   Phase
}

// binds returns whether the event binds a vehicle in a phase that has none.
func (t Transition) binds(from Phase) bool { return !from.Bound() && t.To.Bound() }

// unbinds returns whether the event ends a binding.
func (t Transition) unbinds(from Phase) bool { return from.Bound() && !t.To.Bound() }

// Table returns every transition of a ride's life. docs/rides.md is generated
// from it.
func Table() []Transition {
	return []Transition{
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED, []Phase{None}, Searching},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED, []Phase{Searching}, Offered},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED, []Phase{Offered}, Searching},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED, []Phase{Searching, Offered}, Assigned},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVING, []Phase{Assigned}, Arriving},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVED, []Phase{Assigned, Arriving}, Arrived},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED, []Phase{Assigned, Arriving, Arrived}, OnBoard},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED, []Phase{OnBoard}, Completed},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED, []Phase{None, Searching, Offered, Assigned, Arriving, Arrived}, Cancelled},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_NO_VEHICLE, []Phase{Searching}, NoVehicle},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_UNASSIGNED, []Phase{Offered, Assigned, Arriving, Arrived}, Searching},
		{starlingv1.RideEventKind_RIDE_EVENT_KIND_VEHICLE_LOST, []Phase{OnBoard}, VehicleLost},
	}
}

// transitions is the table by kind and phase.
var transitions = func() map[starlingv1.RideEventKind]map[Phase]Transition {
	m := make(map[starlingv1.RideEventKind]map[Phase]Transition)
	for _, t := range Table() {
		m[t.Kind] = make(map[Phase]Transition)
		for _, from := range t.From {
			m[t.Kind][from] = t
		}
	}
	return m
}()

// May returns whether an event of a kind may happen to a ride in a phase.
func May(kind starlingv1.RideEventKind, in Phase) bool {
	_, ok := transitions[kind][in]
	return ok
}
