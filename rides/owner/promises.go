package owner

import (
	"slices"
	"strings"

	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Propose asks for a vehicle for a ride and returns whether it may: the ride is
// searching and waits for nothing, and the vehicle is not one that it must not
// ask.
func (o *Owner) Propose(name, vehicleID string) bool {
	ride := o.state.Ride(name)
	if ride == nil || ride.Phase != life.Searching || !o.free(name) || o.attempts[name] != nil || slices.Contains(ride.Declined, vehicleID) {
		return false
	}
	if !o.MayAsk(vehicleID) {
		return false
	}
	n := o.cfg.PartitionOf(vehicleID)
	p := &o.partitions[n]
	o.counter++
	a := &attempt{
		vehicleID: vehicleID, id: wire.Attempt{Epoch: o.epoch, Generation: o.state.Owner.Generation, Counter: o.counter},
		partition: n, offset: -1, decideByMS: p.streamMS + o.cfg.DecideMS,
	}
	o.attempts[name], o.asked[vehicleID] = a, name
	p.asking = append(p.asking, name)
	o.append(Append{Partition: n, Key: vehicleID, Location: &wire.Location{Kind: wire.KindProposal, Proposal: wire.Proposal{
		Ride: name, Attempt: a.id, DecideByMS: a.decideByMS, MaxAgeMS: o.cfg.MaxFixAgeMS,
	}}}, appended{proposal: name})
	return true
}

// MayAsk returns whether a vehicle is one that the owner may ask: not while it asks
// it already, or while the vehicle is bound to one of its rides, or when nothing of
// the vehicle's partition has been read.
func (o *Owner) MayAsk(vehicleID string) bool {
	_, asked := o.asked[vehicleID]
	_, bound := o.bound[vehicleID]
	return !asked && !bound && o.partitions[o.cfg.PartitionOf(vehicleID)].read
}

// Asking returns whether a proposal of the owner waits for its tracker.
func (o *Owner) Asking() bool { return len(o.attempts) > 0 }

// Wanting returns whether a ride has begun to want a vehicle, or wants another one,
// since it was called last.
func (o *Owner) Wanting() bool {
	w := o.wanting
	o.wanting = false
	return w
}

// Searching returns the rides that want a vehicle now, oldest request first.
func (o *Owner) Searching() []*life.Ride {
	var rides []*life.Ride
	for _, r := range o.state.SortedActive() {
		if r.Phase == life.Searching && o.free(r.Name) && o.attempts[r.Name] == nil {
			rides = append(rides, r)
		}
	}
	slices.SortStableFunc(rides, func(a, b *life.Ride) int { return int(a.EventMS - b.EventMS) }) // equal times stay by name
	return rides
}

// ReadTrack takes the next record of a partition of `tracks`. Every partition is
// read, in order, from far enough back that each vehicle that is held was
// published since. Advance and See are its parts, for a reader that serves
// several owners and knows what concerns which.
func (o *Owner) ReadTrack(n int32, t *wire.Track) {
	if t.Epoch != o.epoch || o.partitions[n].read && t.SourceOffset <= o.partitions[n].source {
		return // of an epoch that is over, or a repetition
	}
	if t.HasLive {
		o.See(t.SourceOffset, &t.Live)
	}
	for i := range t.Fired {
		if t.Fired[i].HasLive {
			o.See(t.SourceOffset, &t.Fired[i].Live)
		}
		if t.Fired[i].Forgotten {
			delete(o.vehicles, t.Fired[i].VehicleID)
		}
	}
	o.Advance(n, t.SourceOffset, t.ClockMS)
}

// Advance takes how far a partition of `tracks` was read in this epoch: the
// source offset and stream time of the last record, whose views were passed to
// See before.
func (o *Owner) Advance(n int32, source, streamMS int64) {
	p := &o.partitions[n]
	if !p.read {
		p.read, p.sinceMS = true, streamMS
	}
	p.source, p.streamMS = source, streamMS
	if !o.leading {
		return
	}
	for _, name := range slices.Clone(p.asking) {
		o.decide(name)
	}
}

// See takes a vehicle as the record of a source offset published it. What
// concerns this partition of rides are vehicles that are held by its rides, that
// were and are no more, and that its rides are bound to or ask for.
func (o *Owner) See(source int64, v *wire.View) {
	_, bound := o.bound[v.VehicleID]
	_, asked := o.asked[v.VehicleID]
	if !bound && !asked && (v.Reservation == nil || !o.cfg.OwnsRide(v.Reservation.Ride)) {
		delete(o.vehicles, v.VehicleID)
		delete(o.releases, v.VehicleID)
		return
	}
	o.vehicles[v.VehicleID] = seen{
		epoch: o.epoch, source: source, reservation: v.Reservation, seenMS: v.SeenTimeMS, availability: v.Availability,
	}
	if o.leading {
		o.examine(v.VehicleID)
		o.approach(v)
	}
}

// decide ends an attempt whose outcome is known: its tracker has published what
// the proposal did, or can't grant it any more.
func (o *Owner) decide(name string) {
	a, ride := o.attempts[name], o.state.Ride(name)
	p := &o.partitions[a.partition]
	known := a.lost || a.offset >= 0 && p.source >= a.offset || p.streamMS > a.decideByMS
	if !known || !o.free(name) {
		return
	}
	delete(o.attempts, name)
	p.asking = slices.DeleteFunc(p.asking, func(n string) bool { return n == name })
	held := o.vehicles[a.vehicleID].reservation
	granted := held != nil && held.Ride == name && held.Attempt == a.id
	if !granted || ride.Phase != life.Searching {
		delete(o.asked, a.vehicleID)
		o.examine(a.vehicleID)
		o.wanting = o.wanting || ride.Phase == life.Searching
		return
	}
	e := &starlingv1.RideEvent{
		Ride: name, Kind: starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED,
		VehicleId: a.vehicleID, Attempt: a.id.ToProto(), Fence: held.Fence.ToProto(),
	}
	if o.cfg.Mode == Offer {
		e.Kind, e.ExpiresMs = starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFERED, o.nowMS+o.cfg.OfferMS
	}
	o.event(e)
}

// examine compares a vehicle's reservation with what the log states, and ends what
// stands on one side only.
func (o *Owner) examine(vehicleID string) {
	v, ok := o.vehicles[vehicleID]
	if !ok {
		return
	}
	if name, bound := o.bound[vehicleID]; bound {
		o.examineBinding(o.state.Ride(name), v)
	}
	if r := v.reservation; r != nil && o.cfg.OwnsRide(r.Ride) && o.over(vehicleID, r) {
		o.release(vehicleID, v, r)
	}
}

// examineBinding looks whether a bound vehicle is still held and still there.
func (o *Owner) examineBinding(r *life.Ride, v seen) {
	if !o.free(r.Name) {
		return
	}
	b := r.Bound
	switch held := v.reservation; {
	case held != nil && held.Ride == r.Name && held.Attempt == b.Attempt:
		if r.Phase == life.Offered && v.availability == starlingv1.Availability_AVAILABILITY_OFFLINE {
			o.event(o.ending(r, starlingv1.RideEventKind_RIDE_EVENT_KIND_OFFER_CLOSED, ReasonOffline))
		}
	case !o.conclusive(b, v):
	case held != nil:
		o.lose(r, ReasonClaimedTwice)
	default:
		o.lose(r, ReasonReleased)
	}
}

// conclusive returns whether what was seen of a bound vehicle came after its
// grant, and in a new epoch after the promise was restated.
func (o *Owner) conclusive(b *life.Binding, v seen) bool {
	if b.Fence.Epoch == v.epoch {
		return v.source > b.Fence.Offset
	}
	at := o.restated[o.cfg.PartitionOf(b.VehicleID)]
	return at.begun && at.missing == 0 && v.source >= at.offset
}

// over returns whether a reservation of a ride of this partition can't be, or
// become, a binding.
func (o *Owner) over(vehicleID string, r *wire.Reservation) bool {
	me := o.state.Owner
	switch its := (life.Owner{Epoch: r.Attempt.Epoch, Generation: r.Attempt.Generation}); {
	case me.Before(its):
		return false // somebody has taken over: it is theirs
	case o.inFlight[r.Ride]:
		return false // it may be what is being bound
	}
	if a := o.attempts[r.Ride]; a != nil && a.id == r.Attempt {
		return false
	}
	ride := o.state.Ride(r.Ride)
	return ride == nil || ride.Bound == nil || ride.Bound.VehicleID != vehicleID || ride.Bound.Attempt != r.Attempt
}

// release appends the end of a reservation, unless one is on its way or its
// effect could not have been seen.
func (o *Owner) release(vehicleID string, v seen, r *wire.Reservation) {
	if last, ok := o.releases[vehicleID]; ok && last.attempt == r.Attempt && (last.offset < 0 || v.source < last.offset) {
		return
	}
	o.releases[vehicleID] = release{r.Attempt, -1}
	n := o.cfg.PartitionOf(vehicleID)
	o.append(Append{Partition: n, Key: vehicleID, Location: &wire.Location{Kind: wire.KindRelease, Release: wire.Release{
		Ride: r.Ride, Attempt: r.Attempt, DecideByMS: o.partitions[n].streamMS + o.cfg.DecideMS,
	}}}, appended{released: vehicleID})
}

// reassert restates to every partition of `locations` what is promised there.
// The first complete one of the epoch counts, so it may be repeated.
func (o *Owner) reassert() {
	for n := range o.cfg.Partitions {
		o.reassertTo(n)
	}
}

func (o *Owner) reassertTo(n int32) {
	var parts [][]wire.Promise
	size := 0
	for _, p := range o.promises(n) {
		if bytes := wire.PromiseSize(&p); len(parts) == 0 || size+bytes > o.cfg.MaxPromisesBytes {
			parts, size = append(parts, nil), 0
		}
		size += wire.PromiseSize(&p)
		parts[len(parts)-1] = append(parts[len(parts)-1], p)
	}
	if len(parts) == 0 {
		parts = [][]wire.Promise{nil}
	}
	o.restated[n] = restatement{begun: true, missing: len(parts)}
	for i, promises := range parts {
		a := &Append{Partition: n, Location: &wire.Location{Kind: wire.KindReasserted, Reasserted: wire.Reasserted{
			Epoch: o.epoch, RidesPartition: o.cfg.Partition, Generation: o.state.Owner.Generation,
			Part: int32(i), Parts: int32(len(parts)), Promises: promises,
		}}}
		o.append(*a, appended{reasserts: a})
	}
}

// promises are the bindings to vehicles of a partition of `locations`, by
// vehicle.
func (o *Owner) promises(n int32) []wire.Promise {
	var promises []wire.Promise
	for vehicle, name := range o.bound {
		if o.cfg.PartitionOf(vehicle) != n {
			continue
		}
		r := o.state.Ride(name)
		promises = append(promises, wire.Promise{
			VehicleID: vehicle, OnBoard: r.Phase == life.OnBoard,
			Reservation: wire.Reservation{Ride: name, Attempt: r.Bound.Attempt, Fence: r.Bound.Fence},
		})
	}
	slices.SortFunc(promises, func(a, b wire.Promise) int { return strings.Compare(a.VehicleID, b.VehicleID) })
	return promises
}
