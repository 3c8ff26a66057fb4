package owner

import (
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// ReasonTrack is that of an arrival which the vehicle's fixes show.
const ReasonTrack = "SEEN_AT_PICKUP"

// approach compares where a bound vehicle is with the pickup, and appends that it
// is arriving or has arrived. One fix near the pickup is no arrival: it may be
// wrong, or the vehicle passes by. Nor does one that is a little off end a stay.
func (o *Owner) approach(v *wire.View) {
	name, bound := o.bound[v.VehicleID]
	if !bound || o.cfg.ArrivingM <= 0 || v.DeviceTimeMS == 0 || !o.free(name) {
		return
	}
	ride := o.state.Ride(name)
	if held := v.Reservation; held == nil || held.Attempt != ride.Bound.Attempt || ride.Phase != life.Assigned && ride.Phase != life.Arriving {
		return
	}
	distanceM := geo.DistanceDeg(v.LatDeg, v.LonDeg, ride.Order.GetPickupLatitude(), ride.Order.GetPickupLongitude())
	sinceMS, near := o.near[name]
	switch {
	case near && distanceM > 2*o.cfg.ArrivedM:
		delete(o.near, name)
		near = false
	case !near && distanceM <= o.cfg.ArrivedM:
		o.near[name] = v.DeviceTimeMS
	}
	switch {
	case near && v.DeviceTimeMS-sinceMS >= o.cfg.ArrivedMS:
		delete(o.near, name)
		o.event(o.ending(ride, starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVED, ReasonTrack))
	case ride.Phase == life.Assigned && distanceM <= o.cfg.ArrivingM:
		o.event(o.ending(ride, starlingv1.RideEventKind_RIDE_EVENT_KIND_ARRIVING, ReasonTrack))
	}
}
