package step

import (
	"fmt"
	"math"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// maxFired is how many other vehicles' timers one record fires.
	maxFired = 64
	// maxFiredBytes bounds what they add to a record; one timer fires even if
	// what it publishes is larger.
	maxFiredBytes = 1 << 20
	// pointBytes and viewBytes bound an encoded point and an encoded view
	// without its attributes.
	pointBytes, viewBytes = 200, 256
)

// timerMS is the stream time at which the vehicle's timer expires: its window
// closes, its view is refreshed, its conflict ends, it is no longer dispatchable for
// its age, or it is forgotten.
func (p *Partition) timerMS(v *vehicle) int64 {
	at := min(p.repeatMS(v), v.seenMS+p.forgetAfterMS(v))
	if v.window.len() > 0 {
		at = min(at, v.seenMS+p.settings.WindowMS)
	}
	if v.conflictUntilMS != 0 {
		at = min(at, v.conflictUntilMS)
	}
	if staleMS, ok := p.staleMS(v); ok {
		at = min(at, staleMS)
	}
	return at
}

// moment is a timer: its stream time and vehicle.
type moment struct {
	atMS    int64
	vehicle string
}

func (m moment) after(other moment) bool {
	return m.atMS > other.atMS || m.atMS == other.atMS && m.vehicle > other.vehicle
}

// repeatMS is the stream time at which the vehicle's view is published again.
//
// The moments follow from the last report, and a vehicle is behind with at most
// its last one: it was published at that one if a report or a timer has changed
// the vehicle since, or if the partition's timers have come past it, for they
// expire in order. So nothing of it stands in the vehicle's own state.
func (p *Partition) repeatMS(v *vehicle) int64 {
	if v.held() != nil {
		// Owners of rides start from a stretch in which every held vehicle is.
		return v.publishedMS + p.settings.RepeatIntervalMS
	}
	lastMS, nextMS := p.settings.repeats(p.streamMS - v.seenMS)
	if lastMS > 0 {
		if m := (moment{v.seenMS + lastMS, v.id}); m.atMS > v.publishedMS && m.after(p.repeated) {
			return m.atMS
		}
	}
	return v.seenMS + nextMS
}

// forgetAfterMS is how long the vehicle may be silent before it is forgotten.
func (p *Partition) forgetAfterMS(v *vehicle) int64 {
	if v.promises != nil {
		return math.MaxInt64 / 2 // not while it is held, or may be
	}
	if v.reports < enoughReports {
		return min(p.settings.ForgetSingleAfterMS, p.settings.ForgetAfterMS)
	}
	return p.settings.ForgetAfterMS
}

// staleMS is the stream time from which on the vehicle is not dispatchable for
// its age, and whether it has to be published then: when it is free and nothing
// has changed it since.
func (p *Partition) staleMS(v *vehicle) (int64, bool) {
	at := v.correctedMS() + p.settings.DispatchMaxAgeMS + 1
	return at, v.availability == starlingv1.Availability_AVAILABILITY_FREE && v.conflictUntilMS == 0 && v.newestMS > 0 && at > v.publishedMS
}

// fireTimers fires the expired timers of other vehicles in the order of (time,
// vehicle) and leaves what is too much for one record to the next.
func (p *Partition) fireTimers(t *wire.Track) (poison error) {
	size := 0
	for len(t.Fired) < maxFired && size < maxFiredBytes {
		v := p.nextExpired()
		if v == nil {
			break
		}
		d := extend(&t.Fired)
		*d = wire.Fired{VehicleID: v.id, FinalPoints: d.FinalPoints[:0]}
		before := p.notableIn(v)
		if err := p.fire(v, d); err != nil {
			poison = err
		}
		after := p.notableIn(v)
		if d.Forgotten {
			after = notable{}
		}
		p.recount(before, after)
		size += pointBytes*len(d.FinalPoints) + viewBytes + attributesBytes(v)
	}
	return poison
}

// nextExpired returns the first vehicle by (time, vehicle) whose timer has
// expired, or nil. Times in the heap are lower bounds, so a vehicle is first only
// if its time is right; the order does not depend on how far off the others are.
func (p *Partition) nextExpired() *vehicle {
	for {
		scheduledMS, v, ok := p.timers.first()
		if !ok || scheduledMS > p.streamMS {
			return nil
		}
		if at := p.timerMS(v); at != scheduledMS {
			p.timers.schedule(v, at)
			continue
		}
		return v
	}
}

// fire does to v what its timer stands for. If that panics, the vehicle's track
// is dropped, because its window could never close.
//
// What it does is one of two: it changes the vehicle, which is stored then, or it
// publishes the view again and leaves the vehicle as it is.
func (p *Partition) fire(v *vehicle, d *wire.Fired) (poison error) {
	p.undo.reset()
	p.undo.save(v)
	defer func() {
		if r := recover(); r != nil {
			p.undo.restore(v)
			v.restart()
			v.publishedMS = p.streamMS
			p.markChanged(v)
			if p.streamMS >= v.conflictUntilMS {
				v.conflictUntilMS = 0
			}
			*d = wire.Fired{VehicleID: v.id, HasLive: true}
			p.view(v, &d.Live)
			p.timers.schedule(v, p.timerMS(v))
			poison = fmt.Errorf("fire the timer of vehicle %s: %v", v.id, r)
		}
	}()
	silent := p.streamMS - v.seenMS
	if silent >= p.forgetAfterMS(v) {
		d.FinalPoints = p.closeAll(v, d.FinalPoints)
		d.Forgotten = true
		p.forget(v)
		return nil
	}
	repeatMS := p.repeatMS(v)
	closes := silent >= p.settings.WindowMS && v.window.len() > 0
	if closes {
		d.FinalPoints = p.closeAll(v, d.FinalPoints)
	}
	staleMS, changes := p.staleMS(v)
	changes = changes && p.streamMS >= staleMS || v.held() != nil && p.streamMS >= repeatMS
	if v.conflictUntilMS != 0 && p.streamMS >= v.conflictUntilMS {
		v.conflictUntilMS = 0
		changes = true
	}
	if changes || p.streamMS >= repeatMS {
		d.HasLive = true
		p.view(v, &d.Live)
		if changes || closes {
			v.publishedMS = p.streamMS
		} else {
			p.repeated = moment{repeatMS, v.id}
		}
	}
	if changes || closes {
		p.markChanged(v)
	}
	p.timers.schedule(v, p.timerMS(v))
	return nil
}

func (p *Partition) forget(v *vehicle) {
	p.timers.remove(v)
	delete(p.vehicles, v.id)
	p.forgotten = append(p.forgotten, v.id)
}

func attributesBytes(v *vehicle) int {
	if v.attributes == nil {
		return 0
	}
	n := len(v.attributes.Type)
	for _, tag := range v.attributes.Tags {
		n += len(tag) + 8
	}
	return n
}

// timers is a heap of vehicles by (a lower bound of their timer, vehicle). A
// vehicle that reports all the time moves only when its bound is reached.
type timers struct {
	heap []timer
}

type timer struct {
	atMS    int64
	vehicle *vehicle
}

// noSlot is the slot of a vehicle that is not in the heap.
const noSlot = math.MinInt32

func (h *timers) first() (int64, *vehicle, bool) {
	if len(h.heap) == 0 {
		return 0, nil, false
	}
	return h.heap[0].atMS, h.heap[0].vehicle, true
}

// scheduleBy makes sure that v is in the heap no later than at a time.
func (h *timers) scheduleBy(v *vehicle, atMS int64) {
	if v.timerSlot == noSlot || h.heap[v.timerSlot].atMS > atMS {
		h.schedule(v, atMS)
	}
}

// schedule sets the timer of v.
func (h *timers) schedule(v *vehicle, atMS int64) {
	if v.timerSlot == noSlot {
		v.timerSlot = int32(len(h.heap))
		h.heap = append(h.heap, timer{})
	}
	i := int(v.timerSlot)
	h.heap[i] = timer{atMS, v}
	h.down(h.up(i))
}

// remove takes v out.
func (h *timers) remove(v *vehicle) {
	i, last := int(v.timerSlot), len(h.heap)-1
	v.timerSlot = noSlot
	moved := h.heap[last]
	h.heap[last] = timer{}
	h.heap = h.heap[:last]
	if i < last {
		h.heap[i] = moved
		moved.vehicle.timerSlot = int32(i)
		h.down(h.up(i))
	}
}

func (h *timers) up(i int) int {
	at := h.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !at.before(h.heap[parent]) {
			break
		}
		h.set(i, h.heap[parent])
		i = parent
	}
	h.set(i, at)
	return i
}

func (h *timers) down(i int) {
	at := h.heap[i]
	for {
		child := 2*i + 1
		if child >= len(h.heap) {
			break
		}
		if child+1 < len(h.heap) && h.heap[child+1].before(h.heap[child]) {
			child++
		}
		if !h.heap[child].before(at) {
			break
		}
		h.set(i, h.heap[child])
		i = child
	}
	h.set(i, at)
}

func (h *timers) set(i int, at timer) {
	h.heap[i] = at
	at.vehicle.timerSlot = int32(i)
}

func (a timer) before(b timer) bool {
	return a.atMS < b.atMS || a.atMS == b.atMS && a.vehicle.id < b.vehicle.id
}
