package check

import (
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// hold is one reservation of a vehicle, from its grant to its end.
type hold struct {
	ride    string
	attempt attempt
	fence   fence
	grantMS int64
	// released and operator are true when a release, or an operator's, has ended
	// it; suspended is true between a raised epoch and its restatement.
	released, operator, suspended bool
	endMS                         int64
}

func (h *hold) open() bool { return !h.released && !h.suspended }

// proposed is an attempt that was proposed, or released before.
type proposed struct {
	ride    string
	attempt attempt
}

// Vehicles replays the reservations of a partition of vehicles: all records of
// `locations`, then all of `tracks`.
type Vehicles struct {
	c         *Checker
	partition int32
	locations []location
	at        int // the location whose track comes next
	epoch     int64
	held      map[string]*hold
	decided   map[proposed]bool
	// restated is which partitions of rides have restated their promises in this
	// epoch, and promises what they have.
	restated map[int32]bool
	parts    map[generationOf]map[int32][]*starlingv1.Promise
	promises map[proposed]bool
}

type generationOf struct {
	partition  int32
	generation int64
}

// location is what a record of `locations` is about, as far as rides go.
type location struct {
	offset, appendMS int64
	vehicle          string
	proposal         *starlingv1.Proposal
	release          *starlingv1.Release
	reasserted       *starlingv1.Reasserted
}

// Vehicles begins a partition of `locations`.
func (c *Checker) Vehicles(partition int32) *Vehicles {
	v := &Vehicles{c: c, partition: partition, held: make(map[string]*hold), decided: make(map[proposed]bool)}
	v.raise(0)
	return v
}

// raise begins an epoch: reservations are dropped until they are restated.
func (v *Vehicles) raise(epoch int64) {
	v.epoch = epoch
	v.restated, v.promises = make(map[int32]bool), make(map[proposed]bool)
	v.parts = make(map[generationOf]map[int32][]*starlingv1.Promise)
	for _, h := range v.held {
		h.suspended = true
	}
	clear(v.held)
}

// Location takes the next record of `locations`.
func (v *Vehicles) Location(rec Record) {
	var m starlingv1.LocationRecord
	if err := proto.Unmarshal(rec.Value, &m); err != nil {
		v.c.Findings.Add(Undecodable, "locations partition %d offset %d: %v", v.partition, rec.Offset, err)
		return
	}
	v.locations = append(v.locations, location{
		offset: rec.Offset, appendMS: rec.AppendMS, vehicle: string(rec.Key),
		proposal: m.GetProposal(), release: m.GetRelease(), reasserted: m.GetReasserted(),
	})
}

// Track takes the next record of `tracks`. What repeats is dropped, and what
// follows a record that has not come yet is passed over: it comes again.
func (v *Vehicles) Track(rec Record) {
	var m starlingv1.TrackRecord
	if err := proto.Unmarshal(rec.Value, &m); err != nil {
		v.c.Findings.Add(Undecodable, "tracks partition %d offset %d: %v", v.partition, rec.Offset, err)
		return
	}
	if v.at == len(v.locations) || m.GetSourceOffset() != v.locations[v.at].offset || m.GetEpoch() < v.epoch {
		return
	}
	if m.GetEpoch() > v.epoch {
		v.raise(m.GetEpoch())
	}
	l := v.locations[v.at]
	v.at++
	v.restate(l.reasserted)
	v.decide(l, &m)
	v.see(l, l.vehicle, m.GetLive())
	for _, due := range m.GetDues() {
		if due.GetLive() != nil && due.GetVehicleId() != l.vehicle {
			v.see(location{offset: l.offset, appendMS: l.appendMS, vehicle: due.GetVehicleId()}, due.GetVehicleId(), due.GetLive())
		}
	}
}

// restate takes a part of a restatement; the first complete set of a partition of
// rides counts.
func (v *Vehicles) restate(m *starlingv1.Reasserted) {
	if m == nil || m.GetEpoch() != v.epoch {
		return
	}
	v.c.Totals.Restatements++
	key := generationOf{m.GetRidesPartition(), m.GetGeneration()}
	if v.parts[key] == nil {
		v.parts[key] = make(map[int32][]*starlingv1.Promise)
	}
	v.parts[key][m.GetPart()] = m.GetPromises()
	if len(v.parts[key]) < int(m.GetParts()) || v.restated[m.GetRidesPartition()] {
		return
	}
	v.restated[m.GetRidesPartition()] = true
	for _, part := range v.parts[key] {
		for _, p := range part {
			v.promises[proposed{p.GetReservation().GetRide(), attemptOf(p.GetReservation().GetAttempt())}] = true
		}
	}
}

// decide counts a proposal's first copy, and notes what can't be granted any more.
func (v *Vehicles) decide(l location, t *starlingv1.TrackRecord) {
	if r := l.release; r != nil {
		v.c.Totals.Releases++
		if !r.GetOperator() {
			v.decided[proposed{r.GetRide(), attemptOf(r.GetAttempt())}] = true
		}
		return
	}
	p := l.proposal
	if p == nil {
		return
	}
	id := proposed{p.GetRide(), attemptOf(p.GetAttempt())}
	if r := v.c.rides[id.ride]; r == nil || !v.c.takeovers[r.partition][generation{id.attempt.epoch, id.attempt.generation}] {
		v.c.Findings.Add(UnknownGeneration, "locations partition %d offset %d: %s %v", v.partition, l.offset, id.ride, id.attempt)
	}
	now := t.GetLive().GetReservation()
	here := now != nil && attemptOf(now.GetAttempt()) == id.attempt && now.GetRide() == id.ride && fenceOf(now.GetFence()) == (fence{v.epoch, l.offset})
	if v.decided[id] {
		if here {
			v.c.Findings.Add(GrantedTwice, "locations partition %d offset %d: %s %v", v.partition, l.offset, id.ride, id.attempt)
		}
		return
	}
	v.decided[id] = true
	v.c.Totals.Proposals++
	if !here {
		v.c.Totals.Lost++
		if v.held[l.vehicle] != nil {
			v.c.Totals.LostToHeld++
		}
		return
	}
	v.c.Totals.Granted++
	if p.GetDecideByMs() < t.GetClockMs() {
		v.c.Findings.Add(GrantedLate, "locations partition %d offset %d: until %d ms at %d ms", v.partition, l.offset, p.GetDecideByMs(), t.GetClockMs())
	}
	if len(v.restated) < int(v.c.partitions) {
		v.c.Findings.Add(GrantedUnrestated, "locations partition %d offset %d: %d of %d", v.partition, l.offset, len(v.restated), v.c.partitions)
	}
}

// see compares what a vehicle was published to be held by with what the record
// may have made of it.
func (v *Vehicles) see(l location, vehicle string, view *starlingv1.VehicleView) {
	if view == nil {
		return
	}
	if view.GetVehicleId() != vehicle {
		v.c.Findings.Add(Undecodable, "tracks partition %d, source %d: %s in place of %s", v.partition, l.offset, view.GetVehicleId(), vehicle)
		return
	}
	now, was := view.GetReservation(), v.held[vehicle]
	same := now != nil && was != nil && now.GetRide() == was.ride && attemptOf(now.GetAttempt()) == was.attempt && fenceOf(now.GetFence()) == was.fence
	ends := was != nil && l.release != nil &&
		(l.release.GetOperator() || l.release.GetRide() == was.ride && attemptOf(l.release.GetAttempt()) == was.attempt)
	if same {
		if ends {
			v.c.Findings.Add(StillHeld, "%s at offset %d: %s %v", vehicle, l.offset, was.ride, was.attempt)
		}
		return
	}
	if was != nil {
		switch {
		case !ends && now != nil:
			v.c.Findings.Add(GrantedHeld, "%s at offset %d: %s %v, then %s %v", vehicle, l.offset, was.ride, was.attempt, now.GetRide(), attemptOf(now.GetAttempt()))
		case !ends:
			v.c.Findings.Add(Unreleased, "%s at offset %d: %s %v", vehicle, l.offset, was.ride, was.attempt)
		}
		was.released, was.operator, was.endMS = true, l.release.GetOperator(), l.appendMS
		delete(v.held, vehicle)
	}
	if now != nil {
		v.hold(l, vehicle, now)
	}
}

// hold takes a reservation that the vehicle did not have before the record.
func (v *Vehicles) hold(l location, vehicle string, now *starlingv1.Reservation) {
	h := &hold{ride: now.GetRide(), attempt: attemptOf(now.GetAttempt()), fence: fenceOf(now.GetFence()), grantMS: l.appendMS}
	id := proposed{h.ride, h.attempt}
	v.held[vehicle] = h
	if h.fence.epoch < v.epoch {
		if !v.promises[id] {
			v.c.Findings.Add(Ungranted, "%s at offset %d: %s %v, which nobody has restated", vehicle, l.offset, h.ride, h.attempt)
		}
		for _, old := range v.c.holds[vehicle] {
			if old.suspended && old.ride == h.ride && old.attempt == h.attempt && old.fence == h.fence {
				old.suspended = false
				v.held[vehicle] = old
				return
			}
		}
	} else if p := l.proposal; p == nil || p.GetRide() != h.ride || attemptOf(p.GetAttempt()) != h.attempt || h.fence != (fence{v.epoch, l.offset}) {
		v.c.Findings.Add(Ungranted, "%s at offset %d: %s %v of %v", vehicle, l.offset, h.ride, h.attempt, h.fence)
	}
	v.c.holds[vehicle] = append(v.c.holds[vehicle], h)
}

// Finish ends the partition: everything about rides must have its track.
func (v *Vehicles) Finish() {
	for _, l := range v.locations[v.at:] {
		if l.proposal != nil || l.release != nil {
			v.c.Findings.Add(TracksGap, "locations partition %d offset %d of %s", v.partition, l.offset, l.vehicle)
		}
	}
}
