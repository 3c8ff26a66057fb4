package tracker

import (
	"fmt"
	"math"

	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// maxDues is how many other vehicles' dues one record settles.
	maxDues = 64
	// maxDueBytes bounds what their dues add to a record; one due is settled
	// even if it is larger.
	maxDueBytes = 1 << 20
	// pointBytes and viewBytes bound an encoded point and an encoded view
	// without its attributes.
	pointBytes, viewBytes = 200, 256
)

// due is when time next does something to the vehicle: its window closes, it is
// told again, or it is forgotten.
func (p *Partition) due(v *vehicle) int64 {
	due := min(v.toldMS+p.settings.RepeatIntervalMS, v.seenMS+p.settings.ForgetAfterMS)
	if len(v.open()) > 0 {
		due = min(due, v.seenMS+p.settings.WindowMS)
	}
	return due
}

// settleDues settles other vehicles' dues in the order of (due, vehicle) and
// leaves what is too much for one record to the next.
func (p *Partition) settleDues(t *wire.Track) (poison error) {
	size := 0
	for len(t.Dues) < maxDues && size < maxDueBytes {
		v := p.nextDue()
		if v == nil {
			break
		}
		d := extend(&t.Dues)
		*d = wire.Due{VehicleID: v.id, FinalPoints: d.FinalPoints[:0]}
		if err := p.settleOther(v, d); err != nil {
			poison = err
		}
		size += pointBytes*len(d.FinalPoints) + viewBytes + attributesBytes(v)
	}
	return poison
}

// nextDue returns the first vehicle that is due by (due, vehicle), or nil.
// Places in the heap are lower bounds, so a vehicle is first only if its place
// is right; the order does not depend on how far off the others are.
func (p *Partition) nextDue() *vehicle {
	for {
		placed, v, ok := p.dues.first()
		if !ok || placed > p.clockMS {
			return nil
		}
		if due := p.due(v); due != placed {
			p.dues.place(v, due)
			continue
		}
		return v
	}
}

// settleOther does to v what its time has come for. If that panics, the
// vehicle's track is dropped, because its window could never close.
func (p *Partition) settleOther(v *vehicle, d *wire.Due) (poison error) {
	p.markChanged(v)
	p.undo.save(v)
	defer func() {
		if r := recover(); r != nil {
			p.undo.restore(v)
			v.track = track{liveValid: true}
			v.toldMS = p.clockMS
			*d = wire.Due{VehicleID: v.id, HasLive: true}
			p.view(v, &d.Live)
			p.dues.place(v, p.due(v))
			poison = fmt.Errorf("settle the dues of vehicle %s: %v", v.id, r)
		}
	}()
	silent := p.clockMS - v.seenMS
	if silent >= p.settings.ForgetAfterMS {
		d.FinalPoints = p.closeAll(&v.track, d.FinalPoints)
		d.Forgotten = true
		p.forget(v)
		return nil
	}
	if silent >= p.settings.WindowMS {
		d.FinalPoints = p.closeAll(&v.track, d.FinalPoints)
	}
	if p.clockMS-v.toldMS >= p.settings.RepeatIntervalMS {
		d.HasLive = true
		p.view(v, &d.Live)
		v.toldMS = p.clockMS
	}
	p.dues.place(v, p.due(v))
	return nil
}

func (p *Partition) forget(v *vehicle) {
	p.dues.remove(v)
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

// dues is a heap of vehicles by (a lower bound of their due, vehicle). A
// vehicle that reports all the time moves only when its bound is reached.
type dues struct {
	heap []placed
}

type placed struct {
	due     int64
	vehicle *vehicle
}

// notPlaced is the slot of a vehicle that is not in the heap.
const notPlaced = math.MinInt32

func (h *dues) first() (int64, *vehicle, bool) {
	if len(h.heap) == 0 {
		return 0, nil, false
	}
	return h.heap[0].due, h.heap[0].vehicle, true
}

// lower makes sure that v is in the heap no later than at due.
func (h *dues) lower(v *vehicle, due int64) {
	if v.dueSlot == notPlaced || h.heap[v.dueSlot].due > due {
		h.place(v, due)
	}
}

// place puts v at due.
func (h *dues) place(v *vehicle, due int64) {
	if v.dueSlot == notPlaced {
		v.dueSlot = int32(len(h.heap))
		h.heap = append(h.heap, placed{})
	}
	i := int(v.dueSlot)
	h.heap[i] = placed{due, v}
	h.down(h.up(i))
}

// remove takes v out.
func (h *dues) remove(v *vehicle) {
	i, last := int(v.dueSlot), len(h.heap)-1
	v.dueSlot = notPlaced
	moved := h.heap[last]
	h.heap[last] = placed{}
	h.heap = h.heap[:last]
	if i < last {
		h.heap[i] = moved
		moved.vehicle.dueSlot = int32(i)
		h.down(h.up(i))
	}
}

func (h *dues) up(i int) int {
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

func (h *dues) down(i int) {
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

func (h *dues) set(i int, at placed) {
	h.heap[i] = at
	at.vehicle.dueSlot = int32(i)
}

func (a placed) before(b placed) bool {
	return a.due < b.due || a.due == b.due && a.vehicle.id < b.vehicle.id
}
