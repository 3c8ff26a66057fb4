package liveindex

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Index is the live fleet. All methods are safe for concurrent use.
type Index struct {
	states   slab[state]
	vehicles slab[vehicle]
	ids      *idTable
	order    *idOrder
	attrs    *attrTable
	slots    *readerSlots
	version  atomic.Uint64 // the newest published
	count    atomic.Int64  // vehicles
	removed  atomic.Uint64 // vehicles ever removed
	speeds   speeds
	root     *node
	changed  func(*Change)

	mu      sync.Mutex // makes one writer of many; guards what follows
	tree    *tree
	retired retireQueue
	// reclaimAt is how many dead there must be before the next look at the
	// readers.
	reclaimAt int
	touched   uint64 // keeps the compiler from dropping what Warm reads
}

// Change is what an update did to a vehicle.
type Change struct {
	ID string
	// From and To are where the vehicle was and where it is, as unit vectors;
	// the zero vector stands for no position.
	From, To geo.Vec
	// Old and New are what a vehicle counts as before and after.
	Old, New Standing
}

// Standing is what a vehicle counts as. The zero value is that of a vehicle that
// is not known.
type Standing struct {
	Known bool
	// Cell is the H3 cell of the position, 0 without one.
	Cell h3.Cell
	// Availability is the derived one.
	Availability starlingv1.Availability
	Dispatchable bool
}

// New returns an empty index. If changed is not nil, it is called after each
// update that changed a vehicle. It must not block, nor call methods that write,
// nor keep what it is given.
func New(changed func(*Change)) *Index {
	x := &Index{changed: changed, ids: newIDTable(), attrs: newAttrTable(), slots: newReaderSlots()}
	x.order = newIDOrder(&x.vehicles)
	x.tree = newTree(&x.states, func(number uint32) string { return x.vehicles.at(number).id() })
	x.root = x.tree.root
	x.version.Store(firstPinned)
	x.speeds.top.Store(-1)
	return x
}

// Len is the number of vehicles, those without a position included.
func (x *Index) Len() int { return int(x.count.Load()) }

// Upsert makes a view the newest state of its vehicle. It keeps nothing of the
// view's memory. A view without anything new changes nothing. One that breaks
// a rule is refused with an error that names the field, and changes nothing.
func (x *Index) Upsert(v *wire.View) error {
	if err := check(v); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reclaim()

	var old *state
	number, _, known := x.ids.find(v.VehicleID, &x.vehicles)
	if known {
		old = x.states.at(x.vehicles.at(number).current.Load() - 1)
	} else {
		number = x.vehicles.alloc()
		x.vehicles.at(number).setID(v.VehicleID)
	}
	born := x.version.Load() + 1
	fresh := x.states.alloc()
	s := x.states.at(fresh)
	s.born, s.vehicle = born, number
	x.fill(s, v, old)
	if known && s.sameAs(old) {
		x.attrs.release(s.attributes)
		x.states.release(fresh)
		return nil
	}
	x.speeds.add(s)
	var c Change
	if known {
		c.From, c.Old = x.whereIs(old), old.standing()
	}
	if v.DeviceTimeMS != 0 {
		x.addEntry(fresh, s, old)
		c.To = x.whereIs(s)
	}
	c.New = s.standing()
	if known {
		x.retire(x.vehicles.at(number).current.Load()-1, old, born)
	}
	x.vehicles.at(number).current.Store(fresh + 1)
	if !known {
		x.ids.insert(x.vehicles.at(number).id(), number, &x.vehicles)
		x.order.insert(number)
		x.count.Add(1)
	}
	x.version.Store(born)
	if x.changed != nil {
		c.ID = x.vehicles.at(number).id()
		x.changed(&c)
	}
	return nil
}

// sameAs returns whether a state that has just been filled is as its vehicle's
// last.
func (s *state) sameAs(old *state) bool {
	if s.deviceTimeMS != old.deviceTimeMS || s.seenTimeMS != old.seenTimeMS {
		return false // nearly always
	}
	a, b := *s, *old
	b.born, b.leaf, b.place, b.has = a.born, a.leaf, a.place, b.has&^hasPosition
	return a == b
}

// standing is what a vehicle in this state counts as.
func (s *state) standing() Standing {
	out := Standing{Known: true, Availability: s.derived(), Dispatchable: s.has&isDispatchable != 0}
	if s.has&hasPosition != 0 {
		out.Cell = s.cell
	}
	return out
}

// whereIs returns a state's place, the zero vector if it has none.
func (x *Index) whereIs(s *state) geo.Vec {
	if s.has&hasPosition == 0 {
		return geo.Vec{}
	}
	return x.tree.leaves[s.leaf].entries[s.place].at
}

// Remove forgets a vehicle and reports whether it was known.
func (x *Index) Remove(id string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reclaim()
	number, place, known := x.ids.find(id, &x.vehicles)
	if !known {
		return false
	}
	v := x.vehicles.at(number)
	died := x.version.Load() + 1
	current := v.current.Load() - 1
	c := Change{ID: v.id(), From: x.whereIs(x.states.at(current)), Old: x.states.at(current).standing()}
	x.retire(current, x.states.at(current), died)
	x.retired.last().vehicle = number + 1
	x.removed.Add(1)
	v.current.Store(0)
	x.ids.remove(place)
	x.order.remove(number)
	x.count.Add(-1)
	x.version.Store(died)
	if x.changed != nil {
		x.changed(&c)
	}
	return true
}

// check refuses what the index cannot hold.
func check(v *wire.View) error {
	if v.VehicleID == "" {
		return fmt.Errorf("vehicle_id: is empty")
	}
	if v.Verdict < 0 || v.Verdict > math.MaxUint8 {
		return fmt.Errorf("verdict: %d is not known", v.Verdict)
	}
	if v.Availability < 0 || v.Availability >= 1<<availabilityBits {
		return fmt.Errorf("availability: %d is not known", v.Availability)
	}
	if v.DerivedAvailability < 0 || v.DerivedAvailability >= 1<<availabilityBits {
		return fmt.Errorf("derived_availability: %d is not known", v.DerivedAvailability)
	}
	if v.DeviceTimeMS == 0 {
		return nil
	}
	if v.DeviceTimeMS < 0 {
		return fmt.Errorf("device_time_ms: %d is negative", v.DeviceTimeMS)
	}
	// Negated, so that NaN is refused too.
	if !(v.LatDeg >= -90 && v.LatDeg <= 90) {
		return fmt.Errorf("latitude: %v is not in [-90, 90]", v.LatDeg)
	}
	if !(v.LonDeg >= -180 && v.LonDeg <= 180) {
		return fmt.Errorf("longitude: %v is not in [-180, 180]", v.LonDeg)
	}
	return nil
}

// addEntry puts a state into the tree.
func (x *Index) addEntry(number uint32, s, old *state) {
	var at geo.Vec
	near := x.tree.root
	if old != nil && old.has&hasPosition != 0 {
		near = x.tree.leaves[old.leaf]
	}
	if near != x.tree.root && old.latDeg == s.latDeg && old.lonDeg == s.lonDeg {
		at = near.entries[old.place].at
	} else {
		at = geo.Unit(s.latDeg, s.lonDeg)
	}
	p := treeKeyOf(at, x.vehicles.at(s.vehicle).id())
	leaf := x.tree.spaceFor(x.tree.leafFor(near, p), p)
	x.tree.stackUnder(leaf, at)
	place := leaf.takeFree()
	leaf.live++
	s.leaf, s.place = leaf.number, place
	s.has |= hasPosition
	e := &leaf.entries[place]
	e.at, e.fixTimeMS, e.state = at, s.fixTimeMS(), number
	e.kind = s.kind()
	// Readers see the entry from its death on; until its version is published
	// they find that it is not born yet, so that must be known before.
	atomic.StoreUint64(&leaf.lastBorn, s.born)
	atomic.StoreUint64(&e.death, alive)
}

// retire marks a state, and its entry if it has one, dead from a version on.
func (x *Index) retire(number uint32, s *state, died uint64) {
	if s.has&hasPosition != 0 {
		leaf := x.tree.leaves[s.leaf]
		leaf.live--
		atomic.StoreUint64(&leaf.entries[s.place].death, died)
	}
	x.retired.push(retired{died: died, state: number})
}

// reclaimEvery bounds how often the announcements of all readers are looked at.
const reclaimEvery = 32

// reclaim frees what died before every reader's version.
func (x *Index) reclaim() {
	if x.retired.len() < x.reclaimAt {
		return
	}
	oldest := x.slots.oldest(x.version.Load())
	for x.retired.len() > 0 && x.retired.first().died <= oldest {
		c := x.retired.pop()
		s := x.states.at(c.state)
		if s.has&hasPosition != 0 {
			x.tree.freed(x.tree.leaves[s.leaf], s.place)
		}
		x.attrs.release(s.attributes)
		x.speeds.remove(s)
		x.states.release(c.state)
		if c.vehicle != 0 {
			x.vehicles.at(c.vehicle - 1).setID("")
			x.vehicles.release(c.vehicle - 1)
		}
	}
	x.reclaimAt = x.retired.len() + reclaimEvery
}

// retired is a state that died, and its vehicle's number plus one if that went
// with it.
type retired struct {
	died           uint64
	state, vehicle uint32
}

// retireQueue holds retired states in order of death, in a ring.
type retireQueue struct {
	ring        []retired // its length is a power of two
	head, count int
}

func (q *retireQueue) len() int        { return q.count }
func (q *retireQueue) first() *retired { return &q.ring[q.head] }
func (q *retireQueue) last() *retired  { return &q.ring[(q.head+q.count-1)&(len(q.ring)-1)] }

func (q *retireQueue) push(c retired) {
	if q.count == len(q.ring) {
		grown := make([]retired, max(64, 2*len(q.ring)))
		for i := range q.count {
			grown[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = grown, 0
	}
	q.count++
	*q.last() = c
}

func (q *retireQueue) pop() retired {
	c := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.count--
	return c
}
