package check

import (
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// phase is where a ride stands, stated anew from docs/rides.md.
type phase uint8

const (
	absent phase = iota
	searching
	offered
	assigned
	arriving
	arrived
	onBoard
	completed
	cancelled
	noVehicle
	vehicleLost
)

func (p phase) ended() bool { return p >= completed }
func (p phase) bound() bool { return p >= offered && p <= onBoard }

// steps is what each kind of event leads to, by the phase in which it may come.
var steps = map[starlingv1.RideEventKind]map[phase]phase{
	starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED:    {absent: searching},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED:      {searching: offered},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED:     {searching: assigned, offered: assigned},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED: {offered: searching},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVING:     {assigned: arriving},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVED:      {assigned: arrived, arriving: arrived},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED:      {assigned: onBoard, arriving: onBoard, arrived: onBoard},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED:    {onBoard: completed},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED: {
		absent: cancelled, searching: cancelled, offered: cancelled, assigned: cancelled, arriving: cancelled, arrived: cancelled,
	},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_NO_VEHICLE: {searching: noVehicle},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_UNASSIGNED: {
		offered: searching, assigned: searching, arriving: searching, arrived: searching,
	},
	starlingv1.RideEventKind_RIDE_EVENT_KIND_VEHICLE_LOST: {onBoard: vehicleLost},
}

// ride is what the log has of one name.
type ride struct {
	name      string
	partition int32

	// Of `ride-requests`: the first order, and whether there is a cancellation.
	order              *starlingv1.RideOrder
	ordered, cancelled bool
	acts               map[act]bool

	// Of `rides`:
	phase    phase
	events   []event
	stood    []standing // after each event
	stamps   []int64    // of each event, in milliseconds since the Unix epoch
	bindings []*binding // the last may be open
}

// event is one that counts.
type event struct {
	kind    starlingv1.RideEventKind
	vehicle string
	attempt attempt
}

// act is what the driver of an attempt did.
type act struct {
	vehicle string
	attempt attempt
	action  starlingv1.DriverAction
}

// binding is a vehicle that is bound to a ride, by the stamps of the events in
// `rides`.
type binding struct {
	ride, vehicle string
	attempt       attempt
	fence         fence
	fromMS, endMS int64
	ended         bool
}

// request is an order or a cancellation in `ride-requests`.
type request struct {
	offset       int64
	ride         string
	cancellation bool
}

func (c *Checker) ride(name string, partition int32) *ride {
	r := c.rides[name]
	if r == nil {
		r = &ride{name: name, partition: partition, acts: make(map[act]bool)}
		c.rides[name] = r
	}
	return r
}

// Request takes the next record of a partition of `ride-requests`.
func (c *Checker) Request(partition int32, rec Record) {
	var m starlingv1.RideRequestRecord
	if err := proto.Unmarshal(rec.Value, &m); err != nil || m.GetRide() != string(rec.Key) || m.GetRide() == "" {
		c.Findings.Add(Undecodable, "ride-requests partition %d offset %d: %v", partition, rec.Offset, err)
		return
	}
	r := c.ride(m.GetRide(), partition)
	switch call := m.GetCall().(type) {
	case *starlingv1.RideRequestRecord_Order:
		c.Totals.Requests++
		if !r.ordered {
			r.ordered, r.order = true, call.Order
		}
		c.requests[partition] = append(c.requests[partition], request{rec.Offset, r.name, false})
	case *starlingv1.RideRequestRecord_Cancellation:
		c.Totals.Cancellations++
		r.cancelled = true
		c.requests[partition] = append(c.requests[partition], request{rec.Offset, r.name, true})
	case *starlingv1.RideRequestRecord_DriverAct:
		c.Totals.DriverActs++
		a := call.DriverAct
		r.acts[act{a.GetVehicleId(), attemptOf(a.GetAttempt()), a.GetAction()}] = true
	}
}

// Rides takes all records of a partition of `rides`, after its requests.
func (c *Checker) Rides(partition int32, records func(yield func(Record) bool)) {
	f := fold{c: c, partition: partition, requests: c.requests[partition]}
	c.takeovers[partition] = make(map[generation]bool)
	for rec := range records {
		f.take(rec)
	}
}

// fold replays one partition of `rides`.
type fold struct {
	c         *Checker
	partition int32
	owner     generation
	led       bool
	below     int64
	requests  []request // not yet below the watermark
}

func (f *fold) take(rec Record) {
	var m starlingv1.RideRecord
	if err := proto.Unmarshal(rec.Value, &m); err != nil || m.GetRecord() == nil {
		f.c.Findings.Add(Undecodable, "rides partition %d offset %d: %v", f.partition, rec.Offset, err)
		return
	}
	if m.GetTakeover() != nil {
		g := generation{m.GetEpoch(), rec.Offset}
		if f.led && (g.epoch < f.owner.epoch || g.epoch == f.owner.epoch && g.offset < f.owner.offset) {
			f.c.Totals.Void++
			return
		}
		if g.epoch > f.owner.epoch {
			f.below = 0 // it begins where the state stood, and offsets may repeat
		}
		f.owner, f.led = g, true
		f.c.takeovers[f.partition][g] = true
		f.c.Totals.Takeovers++
		return
	}
	e := m.GetEvent()
	r := f.c.ride(e.GetRide(), f.partition)
	if !f.led || (generation{m.GetEpoch(), m.GetGeneration()}) != f.owner || e.GetSequence() != int64(len(r.events))+1 {
		f.c.Totals.Void++
		return
	}
	if m.GetRequestsBelow() < f.below {
		f.c.Findings.Add(Backwards, "partition %d offset %d: %d after %d", f.partition, rec.Offset, m.GetRequestsBelow(), f.below)
	}
	f.pass(rec.Offset, m.GetRequestsBelow())
	f.happen(rec, r, e)
}

// pass looks whether every request below the watermark has had its effect in what
// stands before the record at an offset.
func (f *fold) pass(offset, below int64) {
	f.below = max(f.below, below)
	for len(f.requests) > 0 && f.requests[0].offset < below {
		q := f.requests[0]
		f.requests = f.requests[1:]
		r := f.c.rides[q.ride]
		if len(r.events) == 0 || q.cancellation && !r.phase.ended() && r.phase != onBoard {
			f.c.Findings.Add(PassedOver, "partition %d offset %d is said to be behind request %d of %s", f.partition, offset, q.offset, q.ride)
		}
	}
}

// happen takes an event that counts.
func (f *fold) happen(rec Record, r *ride, e *starlingv1.RideEvent) {
	c := f.c
	c.Totals.Events++
	at := event{e.GetKind(), e.GetVehicleId(), attemptOf(e.GetAttempt())}
	before := r.phase
	after, ok := steps[e.GetKind()][before]
	r.events, r.stood, r.stamps = append(r.events, at), append(r.stood, f.stands(r, at, after)), append(r.stamps, rec.AppendMS)
	if !ok || e.GetRide() != string(rec.Key) || r.partition != f.partition {
		c.Findings.Add(ImpossibleEvent, "%s, partition %d offset %d: %v in phase %d", r.name, f.partition, rec.Offset, e.GetKind(), before)
		return
	}
	r.phase = after
	f.caused(r, at, before)
	if before == absent && after == searching && !proto.Equal(withoutDeadline(e.GetOrder()), withoutDeadline(r.order)) {
		c.Findings.Add(OtherOrder, "%s", r.name)
	}
	var open *binding
	if n := len(r.bindings); n > 0 && !r.bindings[n-1].ended {
		open = r.bindings[n-1]
	}
	switch {
	case after.bound() && open == nil:
		b := &binding{ride: r.name, vehicle: at.vehicle, attempt: at.attempt, fence: fenceOf(e.GetFence()), fromMS: rec.AppendMS}
		r.bindings = append(r.bindings, b)
		c.Totals.Bindings++
		if b.attempt.epoch != f.owner.epoch || b.attempt.generation != f.owner.offset {
			c.Findings.Add(ForeignAttempt, "%s, partition %d offset %d: %v by the owner %v", r.name, f.partition, rec.Offset, b.attempt, f.owner)
		}
	case open != nil && at.vehicle != "" && (at.vehicle != open.vehicle || at.attempt != open.attempt):
		c.Findings.Add(TwoVehicles, "%s, partition %d offset %d: %s %v and %s %v", r.name, f.partition, rec.Offset, open.vehicle, open.attempt, at.vehicle, at.attempt)
	}
	if open != nil && !after.bound() {
		open.ended, open.endMS = true, rec.AppendMS
		if !after.ended() {
			c.Totals.Unbound++
		}
	}
}

// stands returns how a ride stands after its next event: the event that binds a vehicle
// names it.
func (f *fold) stands(r *ride, e event, after phase) standing {
	s := standing{phase: after}
	if !after.bound() {
		return s
	}
	if n := len(r.stood); n > 0 && r.phase.bound() {
		s.vehicle, s.attempt = r.stood[n-1].vehicle, r.stood[n-1].attempt
	} else {
		s.vehicle, s.attempt = "vehicles/"+e.vehicle, e.attempt
	}
	return s
}

// caused looks whether somebody asked for an event that nothing but a call leads to.
func (f *fold) caused(r *ride, e event, before phase) {
	var ok bool
	did := func(action starlingv1.DriverAction) bool { return r.acts[act{e.vehicle, e.attempt, action}] }
	switch {
	case e.kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED:
		ok = r.ordered
	case e.kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED:
		ok = r.cancelled
	case e.kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED:
		ok = did(starlingv1.DriverAction_DRIVER_ACTION_BOARD)
	case e.kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED:
		ok = did(starlingv1.DriverAction_DRIVER_ACTION_COMPLETE)
	case e.kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED && before == offered:
		ok = did(starlingv1.DriverAction_DRIVER_ACTION_ACCEPT)
	default:
		ok = true
	}
	if !ok {
		f.c.Findings.Add(Uncaused, "%s: %v of %s %v", r.name, e.kind, e.vehicle, e.attempt)
	}
}

func withoutDeadline(o *starlingv1.RideOrder) *starlingv1.RideOrder {
	if o == nil {
		return nil
	}
	o = proto.Clone(o).(*starlingv1.RideOrder)
	o.DeadlineMs = 0 // the owner sets that of an order without one
	return o
}
