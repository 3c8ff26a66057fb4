package redispositions

import (
	"strings"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// position is what is written of a vehicle.
type position struct {
	source               int64 // offset of the record of `locations` that it stands for
	latDeg, lonDeg       float64
	timeMS, seenMS       int64 // timeMS is 0 without a position
	speedMPS, headingDeg float32
	hasSpeed, hasHeading bool
	reported, derived    starlingv1.Availability
	dispatchable, gone   bool
}

func positionOf(v *wire.View, source int64) position {
	p := position{
		source: source, latDeg: v.LatDeg, lonDeg: v.LonDeg, timeMS: v.DeviceTimeMS, seenMS: v.SeenTimeMS,
		speedMPS: v.SpeedMPS, headingDeg: v.HeadingDeg, hasSpeed: v.HasSpeed, hasHeading: v.HasHeading,
		reported: v.Availability, derived: v.DerivedAvailability, dispatchable: v.Dispatchable,
	}
	if p.derived == 0 {
		p.derived = p.reported
	}
	return p
}

// vehicle is the newest position of one, and whether it waits to be written.
type vehicle struct {
	id string
	position
	observed     time.Time // when its last record came
	queued       bool
	since        time.Time // when it was queued
	older, newer *vehicle  // neighbours by the time of their last record
}

// mirror holds the vehicles of one epoch. Each waits at most once, so what waits
// is bounded by the vehicles, and what is written is always the newest.
type mirror struct {
	epoch    int64
	most     int
	vehicles map[string]*vehicle
	queue    []*vehicle
	ends     vehicle // of the ring by time: newer is the oldest, older the newest
	unplaced int64   // positions that were not taken because the mirror is full
}

func newMirror(epoch int64, most int) mirror {
	return mirror{epoch: epoch, most: most, vehicles: map[string]*vehicle{}}
}

// begin starts a new epoch, in which no vehicle is known.
func (m *mirror) begin(epoch int64) {
	unplaced := m.unplaced
	*m = newMirror(epoch, m.most)
	m.unplaced = unplaced
}

// put takes the newest position of a vehicle and has it written.
func (m *mirror) put(id string, p position, now time.Time) {
	v := m.vehicles[id]
	if v == nil {
		if len(m.vehicles) >= m.most {
			m.unplaced++
			return
		}
		v = &vehicle{id: strings.Clone(id)}
		m.vehicles[v.id] = v
	} else {
		m.unlink(v)
	}
	v.position, v.observed = p, now
	m.link(v)
	m.enqueue(v, now)
}

func (m *mirror) enqueue(v *vehicle, since time.Time) {
	if !v.queued {
		v.queued, v.since = true, since
		m.queue = append(m.queue, v)
	}
}

// written is a vehicle as it was handed to the writer.
type written struct {
	id string
	position
	since time.Time // it waited
}

// take appends up to n of what waits longest to dst.
func (m *mirror) take(n int, dst []written) []written {
	taken := 0
	for ; taken < len(m.queue) && len(dst) < n; taken++ {
		v := m.queue[taken]
		m.queue[taken] = nil
		v.queued = false
		if m.vehicles[v.id] == v { // not let go since
			dst = append(dst, written{v.id, v.position, v.since})
		}
	}
	if m.queue = m.queue[taken:]; len(m.queue) == 0 {
		m.queue = nil
	}
	return dst
}

// giveBack has the vehicles of a batch that was not written wait again.
func (m *mirror) giveBack(batch []written) {
	for i := range batch {
		if v := m.vehicles[batch[i].id]; v != nil {
			m.enqueue(v, batch[i].since)
		}
	}
}

// settle lets go of the vehicles of a batch that are forgotten.
func (m *mirror) settle(batch []written) {
	for i := range batch {
		if v := m.vehicles[batch[i].id]; batch[i].gone && v != nil && v.gone {
			m.drop(v)
		}
	}
}

// enqueueAll has every vehicle written.
func (m *mirror) enqueueAll(now time.Time) {
	for v := m.ends.newer; v != nil && v != &m.ends; v = v.newer {
		m.enqueue(v, now)
	}
}

// expire lets go of up to n vehicles of which nothing was published since then.
func (m *mirror) expire(since time.Time, n int) {
	for ; n > 0; n-- {
		v := m.ends.newer
		if v == nil || v == &m.ends || !v.observed.Before(since) {
			return
		}
		m.drop(v)
	}
}

func (m *mirror) drop(v *vehicle) {
	m.unlink(v)
	delete(m.vehicles, v.id)
}

func (m *mirror) link(v *vehicle) {
	if m.ends.newer == nil {
		m.ends.newer, m.ends.older = &m.ends, &m.ends
	}
	v.older, v.newer = m.ends.older, &m.ends
	v.older.newer, m.ends.older = v, v
}

func (m *mirror) unlink(v *vehicle) {
	v.older.newer, v.newer.older = v.newer, v.older
	v.older, v.newer = nil, nil
}
