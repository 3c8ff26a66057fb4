package check

import (
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Sent is one message of a subscription.
type Sent struct {
	AtMS      int64 // when it came
	Recovered bool
	// Of an event, 0 in a snapshot and with a position.
	Sequence int64
	event    event
	// The ride as it was said to stand.
	Ride  int64 // its sequence, 0 with a position
	stood standing
	Epoch int64
	// Of a position.
	Vehicle  string
	DeviceMS int64
}

// SentOf is a message that came at a time.
func SentOf(atMS int64, m *starlingv1.SubscribeRideEventsResponse) Sent {
	e, r := m.GetEvent(), m.GetRide()
	return Sent{
		AtMS: atMS, Recovered: m.GetRecovered(), Sequence: e.GetSequence(), event: event{e.GetKind(), e.GetVehicleId(), attemptOf(e.GetAttempt())},
		Ride: r.GetSequence(), stood: standing{phase(r.GetPhase()), r.GetVehicle(), attemptOf(r.GetAttempt())}, Epoch: r.GetEpoch(),
		Vehicle: m.GetVehiclePosition().GetVehicle(), DeviceMS: m.GetVehiclePosition().GetDeviceTime().AsTime().UnixMilli(),
	}
}

// standing is where a ride stands, and what is bound to it.
type standing struct {
	phase   phase
	vehicle string // with "vehicles/", empty when none is bound
	attempt attempt
}

// Connection is one subscription of a ride, from its call to its end.
type Connection struct {
	OpenedMS int64
	// After and Epoch are what the call named.
	After, Epoch int64
	// Untrue is true when the call named on purpose what its client had not been sent.
	Untrue bool
	Sent   []Sent
	// Ended is true when the server ended it without an error, NotFound when it said
	// that there is no such ride.
	Ended, NotFound bool
}

// Followed takes all that one follower of a ride was sent over its connections, in
// their order. Whole is true when the follower saw the ride's end.
func (c *Checker) Followed(name string, connections []Connection, whole bool) {
	r := c.rides[name]
	if r == nil {
		if whole {
			c.Findings.Add(AnnouncedOtherwise, "%s: the log has no such ride", name)
		}
		return
	}
	c.Totals.Followed++
	last, known := int64(0), false
	for i := range connections {
		one := &connections[i]
		c.Totals.Connections++
		if !one.Untrue && one.After != last {
			c.Findings.Add(AnnouncedOtherwise, "%s: resumed behind %d, sent was %d", name, one.After, last)
			return
		}
		if known && one.NotFound {
			c.Findings.Add(Disowned, "%s, of which %d events had been sent", name, last)
		}
		f := followed{c: c, r: r, one: one, last: one.After}
		if !f.take() {
			return
		}
		if len(one.Sent) > 0 {
			last, known = f.last, true
		}
		if one.Ended && last < int64(len(r.events)) {
			c.Findings.Add(Unheard, "%s: the subscription ended behind %d of %d", name, last, len(r.events))
		}
	}
	if !whole || last < int64(len(r.events)) {
		c.Findings.Add(Unheard, "%s: %d of %d, over %d connections", name, last, len(r.events), len(connections))
	}
}

// followed is one connection that is judged.
type followed struct {
	c    *Checker
	r    *ride
	one  *Connection
	last int64 // sequence
	// Of the last position.
	vehicle  string
	deviceMS int64
}

// take judges every message in turn, and returns false at the first fault.
func (f *followed) take() bool {
	for i := range f.one.Sent {
		s := &f.one.Sent[i]
		var ok bool
		switch {
		case s.Vehicle != "":
			ok = f.position(s)
		case s.Recovered:
			ok = f.event(s)
		default:
			ok = f.snapshot(i, s)
		}
		if !ok {
			return false
		}
	}
	return true
}

// event is the next of the ride, as the log has it.
func (f *followed) event(s *Sent) bool {
	f.c.Totals.Heard++
	n := s.Sequence
	if n != f.last+1 || n > int64(len(f.r.events)) || f.r.events[n-1] != s.event || s.Ride != n || f.r.stood[n-1] != s.stood {
		f.c.Findings.Add(AnnouncedOtherwise, "%s: %d (%v of %s, then %v) behind %d", f.r.name, n, s.event.kind, s.event.vehicle, s.stood, f.last)
		return false
	}
	f.last = n
	if at := f.r.stamps[n-1]; at < f.one.OpenedMS {
		f.c.Totals.Resumed++
	} else if f.c.Live != nil {
		f.c.Live(time.Duration(max(0, s.AtMS-at)) * time.Millisecond)
	}
	return true
}

// snapshot is a loss that is announced: it comes first, and only to one who has
// events of another epoch or that do not exist, and is the ride as it stood.
func (f *followed) snapshot(i int, s *Sent) bool {
	f.c.Totals.Snapshots++
	one := f.one
	if i > 0 || one.After == 0 || one.Epoch == s.Epoch && one.After <= s.Ride {
		f.c.Findings.Add(LostWithoutCause, "%s: message %d behind %d of epoch %d is the ride at %d of epoch %d", f.r.name, i, one.After, one.Epoch, s.Ride, s.Epoch)
		return false
	}
	if s.Ride < 1 || s.Ride > int64(len(f.r.stood)) || f.r.stood[s.Ride-1] != s.stood {
		f.c.Findings.Add(AnnouncedOtherwise, "%s: at %d it stands as %v", f.r.name, s.Ride, s.stood)
		return false
	}
	f.last = s.Ride
	return true
}

// position is that of the vehicle that is bound, and no older than the last.
func (f *followed) position(s *Sent) bool {
	f.c.Totals.Positions++
	if f.last < 1 || f.last > int64(len(f.r.stood)) || f.r.stood[f.last-1].vehicle != s.Vehicle || s.Vehicle == f.vehicle && s.DeviceMS < f.deviceMS {
		f.c.Findings.Add(PositionOff, "%s behind %d: %s at %d ms, before %s at %d ms", f.r.name, f.last, s.Vehicle, s.DeviceMS, f.vehicle, f.deviceMS)
		return false
	}
	f.vehicle, f.deviceMS = s.Vehicle, s.DeviceMS
	return true
}
