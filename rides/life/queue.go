package life

import (
	"maps"
	"slices"
	"strings"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Queue is the vehicles that wait in a zone, first come, first served. It does not
// change: a record makes a new one.
type Queue struct {
	Zone string
	// Sequence is the number of the last record about it.
	Sequence int64
	// Places are the vehicles that wait, in the order of the records with which
	// they joined.
	Places []Place
}

// Place is a vehicle's in a queue.
type Place struct {
	VehicleID string
	// JoinedOffset is the offset of the record with which it joined, JoinedMS when
	// that was by the owner's clock, in milliseconds since the Unix epoch.
	JoinedOffset, JoinedMS int64
}

// Find returns where a vehicle stands in the queue, from 0, or -1.
func (q *Queue) Find(vehicleID string) int {
	if q == nil {
		return -1
	}
	return slices.IndexFunc(q.Places, func(p Place) bool { return p.VehicleID == vehicleID })
}

// Queue returns a zone's queue, nil if nobody ever joined it. It must not be
// changed.
func (s *State) Queue(zone string) *Queue { return s.queues[zone] }

// Queues returns all queues, by zone. They must not be changed.
func (s *State) Queues() []*Queue {
	return slices.SortedFunc(maps.Values(s.queues), func(a, b *Queue) int { return strings.Compare(a.Zone, b.Zone) })
}

func (s *State) putQueue(q *Queue) {
	if s.queues == nil {
		s.queues = make(map[string]*Queue)
	}
	s.queues[q.Zone] = q
}

// change takes a record about a queue: who leaves, then who joins.
func (s *State) change(offset int64, c *starlingv1.ZoneChange) Verdict {
	before := Queue{Zone: c.GetZone()}
	if q := s.queues[c.GetZone()]; q != nil {
		before = *q
	}
	if c.GetSequence() != before.Sequence+1 {
		return OutOfSequence
	}
	after := Queue{Zone: c.GetZone(), Sequence: c.GetSequence(), Places: slices.Clone(before.Places)}
	for _, left := range c.GetLeft() {
		at := after.Find(left.GetVehicleId())
		if at < 0 {
			return Impossible
		}
		after.Places = slices.Delete(after.Places, at, at+1)
	}
	for _, vehicle := range c.GetJoined() {
		if after.Find(vehicle) >= 0 {
			return Impossible
		}
		after.Places = append(after.Places, Place{vehicle, offset, c.GetTimeMs()})
	}
	s.putQueue(&after)
	return QueueChanged
}

// StateOfQueue is a queue as `rides-state` keeps it.
func StateOfQueue(q *Queue) *starlingv1.ZoneQueueState {
	m := &starlingv1.ZoneQueueState{Zone: q.Zone, Sequence: q.Sequence}
	for _, p := range q.Places {
		m.Places = append(m.Places, &starlingv1.ZonePlace{VehicleId: p.VehicleID, JoinedOffset: p.JoinedOffset, JoinedMs: p.JoinedMS})
	}
	return m
}

// RestoreQueue puts a stored queue into the state.
func (s *State) RestoreQueue(m *starlingv1.ZoneQueueState) {
	q := &Queue{Zone: m.GetZone(), Sequence: m.GetSequence()}
	for _, p := range m.GetPlaces() {
		q.Places = append(q.Places, Place{p.GetVehicleId(), p.GetJoinedOffset(), p.GetJoinedMs()})
	}
	s.putQueue(q)
}
