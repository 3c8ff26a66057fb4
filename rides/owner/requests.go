package owner

import (
	"slices"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Reasons that events carry.
const (
	ReasonCancelled    = "CANCELLED_BY_RIDER"
	ReasonDeclined     = "DRIVER_DECLINED"
	ReasonExpired      = "OFFER_EXPIRED"
	ReasonOffline      = "VEHICLE_OFFLINE"
	ReasonDeadline     = "DEADLINE_PASSED"
	ReasonSilent       = "VEHICLE_SILENT"
	ReasonReleased     = "RESERVATION_GONE"
	ReasonClaimedTwice = "VEHICLE_CLAIMED_BY_ANOTHER_RIDE"
)

// ReadRequest takes the next record of the partition of `ride-requests`. It is
// ignored unless the owner leads, which reads them again from NextRequest.
func (o *Owner) ReadRequest(offset, appendMS int64, r *starlingv1.RideRequestRecord) {
	if !o.leading || offset < o.next {
		return
	}
	o.next = offset + 1
	o.requests = append(o.requests, request{offset: offset, appendMS: appendMS, record: r})
	o.serve()
}

// serve decides the requests of the rides that wait for nothing, in their order.
func (o *Owner) serve() {
	var waiting []request
	for _, r := range o.requests {
		name := r.record.GetRide()
		// One that has acted keeps its ride in flight until its event is read back.
		if !r.acted && o.free(name) {
			e := o.effect(r)
			if e == nil {
				continue
			}
			e.Ride, r.acted = name, true
			o.event(e)
		}
		waiting = append(waiting, r)
	}
	o.requests = waiting
}

// effect is the event that a request leads to, nil if none.
func (o *Owner) effect(r request) *starlingv1.RideEvent {
	name := r.record.GetRide()
	ride := o.state.Ride(name)
	switch call := r.record.GetCall().(type) {
	case *starlingv1.RideRequestRecord_Order:
		if ride == nil && o.cfg.Acceptable(name, r.appendMS) {
			return &starlingv1.RideEvent{Kind: starlingv1.RideEventKind_RIDE_EVENT_KIND_REQUESTED, Order: o.withDeadline(call.Order, r.appendMS)}
		}
	case *starlingv1.RideRequestRecord_Cancellation:
		return o.cancellation(ride, call.Cancellation, name, r.appendMS)
	case *starlingv1.RideRequestRecord_DriverAct:
		return o.driverAct(ride, call.DriverAct)
	}
	return nil
}

// withDeadline returns the order with the deadline that it has when it names none.
func (o *Owner) withDeadline(m *starlingv1.RideOrder, appendMS int64) *starlingv1.RideOrder {
	if m.GetDeadlineMs() != 0 {
		return m
	}
	return &starlingv1.RideOrder{
		Rider: m.GetRider(), PickupLatitude: m.GetPickupLatitude(), PickupLongitude: m.GetPickupLongitude(),
		DropoffLatitude: m.GetDropoffLatitude(), DropoffLongitude: m.GetDropoffLongitude(), PartySize: m.GetPartySize(),
		VehicleType: m.GetVehicleType(), Tags: m.GetTags(), DeadlineMs: appendMS + o.cfg.SearchMS,
	}
}

func (o *Owner) cancellation(ride *life.Ride, c *starlingv1.RideCancellation, name string, appendMS int64) *starlingv1.RideEvent {
	cancelled := &starlingv1.RideEvent{Kind: starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED, Reason: ReasonCancelled}
	switch {
	case ride == nil && o.cfg.Acceptable(name, appendMS):
		cancelled.Order = &starlingv1.RideOrder{Rider: c.GetRider()}
		return cancelled
	case ride == nil, ride.Order.GetRider() != c.GetRider(), !life.May(cancelled.Kind, ride.Phase):
		return nil
	}
	return o.ending(ride, cancelled.Kind, cancelled.Reason)
}

// driverAct is the event of what a driver does; one who is not the bound
// attempt's is refused.
func (o *Owner) driverAct(ride *life.Ride, act *starlingv1.DriverAct) *starlingv1.RideEvent {
	if ride == nil || ride.Bound == nil || ride.Bound.VehicleID != act.GetVehicleId() || ride.Bound.Attempt != wire.AttemptFromProto(act.GetAttempt()) {
		return nil
	}
	var kind starlingv1.RideEventKind
	switch act.GetAction() {
	case starlingv1.DriverAction_DRIVER_ACTION_ACCEPT:
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED
		if ride.Phase != life.Offered {
			return nil
		}
	case starlingv1.DriverAction_DRIVER_ACTION_DECLINE:
		if ride.Phase == life.Offered {
			return o.ending(ride, starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED, ReasonDeclined)
		}
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_UNASSIGNED
		if life.May(kind, ride.Phase) {
			return o.ending(ride, kind, ReasonDeclined)
		}
		return nil
	case starlingv1.DriverAction_DRIVER_ACTION_ARRIVE:
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVED
	case starlingv1.DriverAction_DRIVER_ACTION_BOARD:
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_BOARDED
	case starlingv1.DriverAction_DRIVER_ACTION_COMPLETE:
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED
	}
	if !life.May(kind, ride.Phase) {
		return nil
	}
	return o.ending(ride, kind, "")
}

// ending is an event of a ride that names the vehicle that is bound, if one is.
func (o *Owner) ending(ride *life.Ride, kind starlingv1.RideEventKind, reason string) *starlingv1.RideEvent {
	e := &starlingv1.RideEvent{Ride: ride.Name, Kind: kind, Reason: reason}
	if b := ride.Bound; b != nil {
		e.VehicleId, e.Attempt, e.Fence = b.VehicleID, b.Attempt.ToProto(), b.Fence.ToProto()
	}
	return e
}

// Tick lets time pass: offers and searches end, and vehicles that have been
// silent for too long are lost. nowMS is the owner's clock.
func (o *Owner) Tick(nowMS int64) {
	o.nowMS = nowMS
	if !o.leading {
		return
	}
	listen := o.listens()
	for _, r := range o.state.SortedActive() {
		if r.Bound != nil && r.Phase != life.Offered && !listen || !o.free(r.Name) {
			continue
		}
		switch {
		case r.Phase == life.Offered && nowMS >= r.ExpiresMS:
			o.event(o.ending(r, starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED, ReasonExpired))
		case r.Phase == life.Searching && nowMS >= r.Order.GetDeadlineMs() && o.attempts[r.Name] == nil:
			o.event(o.ending(r, starlingv1.RideEventKind_RIDE_EVENT_KIND_NO_VEHICLE, ReasonDeadline))
		case listen && r.Bound != nil && o.silent(r.Bound.VehicleID):
			o.lose(r, ReasonSilent)
		}
	}
}

// silenceLooks is into how many parts the time is divided after which a silent
// vehicle is lost: so often all are looked at, and not with every tick.
const silenceLooks = 64

// listens returns whether it is time to look for vehicles that are silent.
func (o *Owner) listens() bool {
	if since := o.nowMS - o.listenedMS; since >= 0 && since < o.cfg.SilenceMS/silenceLooks {
		return false
	}
	o.listenedMS = o.nowMS
	return true
}

// lose ends the binding of a vehicle that is gone.
func (o *Owner) lose(r *life.Ride, reason string) {
	kind := starlingv1.RideEventKind_RIDE_EVENT_KIND_UNASSIGNED
	if r.Phase == life.OnBoard {
		kind = starlingv1.RideEventKind_RIDE_EVENT_KIND_VEHICLE_LOST
	}
	o.event(o.ending(r, kind, reason))
}

// silent returns whether a vehicle has not reported for too long, by the stream
// time of its partition.
func (o *Owner) silent(vehicleID string) bool {
	p := &o.partitions[o.cfg.PartitionOf(vehicleID)]
	sinceMS := p.sinceMS // one that its tracker does not know may have reported until then
	if v, ok := o.vehicles[vehicleID]; ok {
		sinceMS = v.seenMS
	}
	return p.read && p.streamMS-sinceMS > o.cfg.SilenceMS
}

// Forget drops the rides that have ended, that no vehicle is held for, and of
// which over returns true: no request for their names may create them anew. It
// returns their names.
func (o *Owner) Forget(over func(name string) bool) []string {
	held := make(map[string]bool)
	for _, v := range o.vehicles {
		if v.reservation != nil {
			held[v.reservation.Ride] = true
		}
	}
	var forgotten []string
	o.state.Each(func(r *life.Ride) {
		if r.Phase.Ended() && o.free(r.Name) && o.attempts[r.Name] == nil && !held[r.Name] && over(r.Name) {
			forgotten = append(forgotten, r.Name)
		}
	})
	slices.Sort(forgotten)
	for _, name := range forgotten {
		o.state.Forget(name)
	}
	return forgotten
}
