package check

import (
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Call is a call about a ride that was acknowledged.
type Call struct {
	Ride      string // without "rides/"
	Partition int32
	Offset    int64
	// Order is that of a request, nil for a cancellation.
	Order *starlingv1.RideOrder
}

// Acknowledged takes a call that a client was acknowledged and the record that
// the log has at its place, nil if none.
func (c *Checker) Acknowledged(call Call, stored *Record) {
	var m starlingv1.RideRequestRecord
	if stored == nil || proto.Unmarshal(stored.Value, &m) != nil || m.GetRide() != call.Ride ||
		call.Order == nil && m.GetCancellation() == nil || call.Order != nil && !proto.Equal(m.GetOrder(), call.Order) {
		c.Findings.Add(NotInLog, "%s, partition %d offset %d", call.Ride, call.Partition, call.Offset)
	}
}

// Heard takes the events that a subscriber of a ride was sent, from its first on.
// ended is true when the subscription ended with the ride.
func (c *Checker) Heard(name string, events []*starlingv1.RideEvent, ended bool) {
	r := c.rides[name]
	if r == nil {
		c.Findings.Add(AnnouncedOtherwise, "%s: the log has no such ride", name)
		return
	}
	for i, e := range events {
		c.Totals.Heard++
		if n := e.GetSequence(); n != int64(i)+1 || i >= len(r.events) || r.events[i] != (event{e.GetKind(), e.GetVehicleId(), attemptOf(e.GetAttempt())}) {
			c.Findings.Add(AnnouncedOtherwise, "%s: %d, %v", name, n, e.GetKind())
			return
		}
	}
	if ended && len(events) < len(r.events) {
		c.Findings.Add(Unheard, "%s: %d of %d", name, len(events), len(r.events))
	}
}
