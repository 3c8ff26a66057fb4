package step

import (
	"errors"

	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/reserve"
)

// vehicle is everything that is known of one vehicle.
type vehicle struct {
	id string
	track
	// givenUpM is the length of the tracks that rebases gave up.
	givenUpM float64
	memory   memory
	sessions sessions
	// authorityFixMS is the newest device time of the report by which the
	// authoritative session became so, 0 if it had no fixes.
	authorityFixMS int64
	// conflictUntilMS is the stream time until which the vehicle is conflicting,
	// 0 when it is not.
	conflictUntilMS int64
	// availability and attributes are what the vehicle reports. attributes is
	// nil when none were reported; what it points to never changes, so views
	// may share it.
	availability starlingv1.Availability
	attributes   *wire.Attributes
	counts       wire.FixCounts
	// seenMS and publishedMS are the stream times at which the vehicle last
	// reported, and at which its view was last published because of a report or of
	// a timer that changed the vehicle. A view that is only published again changes
	// nothing here, or every silent vehicle would have to be stored anew.
	seenMS, publishedMS int64
	// reports counts the reports that were new, up to enoughReports.
	reports uint8
	// jumpSinceMS is the first stamp of the jump that was pending at the last
	// report, 0 for none.
	jumpSinceMS int64
	clock       deviceClock
	suspect     suspect
	behind      behind
	// promises are nil without a reservation and anything to remember of one. What
	// it points to never changes.
	promises *reserve.Vehicle
	// eraseUntilMS is the device time of an erasure that waits for the end of the
	// vehicle's reservation, 0 for none.
	eraseUntilMS int64

	// What follows is not state: it can be dropped without changing an answer.
	cell      h3.Cursor
	timerSlot int32 // index in the partition's timers
	dirty     bool  // changed since the last snapshot
}

// enoughReports make a vehicle one that is not forgotten soon.
const enoughReports = 2

// newVehicle returns a vehicle that has not reported.
func newVehicle(id string) *vehicle {
	return &vehicle{id: id, timerSlot: noSlot, track: track{liveValid: true}}
}

// forget makes the vehicle one that has not reported.
func (v *vehicle) forget() {
	v.window.clear()
	*v = vehicle{id: v.id, promises: v.promises, timerSlot: v.timerSlot, dirty: v.dirty, memory: memory{entries: v.memory.entries[:0]}, sessions: v.sessions[:0],
		track: track{window: v.window, liveValid: true}}
}

// stepErasure passes an erasure on to history and forgets the vehicle, unless it has
// a fix that is to stay. One that has a reservation is forgotten when that ends: what
// holds a promise may not vanish.
func (p *Partition) stepErasure(key []byte, t *wire.Track) error {
	if err := validVehicleID(key); err != nil {
		return err
	}
	if p.location.Erasure.UntilMS <= 0 {
		return errors.New("erasure without a time")
	}
	t.ErasedUntilMS = p.location.Erasure.UntilMS
	if v, known := p.vehicles[string(key)]; known {
		v.eraseUntilMS = max(v.eraseUntilMS, t.ErasedUntilMS)
		p.erase(v, t)
	}
	return nil
}

// erase forgets the vehicle if an erasure asks for it and nothing holds it.
func (p *Partition) erase(v *vehicle, t *wire.Track) {
	switch {
	case v.eraseUntilMS == 0:
	case v.held() != nil:
		p.markChanged(v) // and wait
	case v.newestMS >= v.eraseUntilMS:
		v.eraseUntilMS = 0
		p.markChanged(v)
	default:
		p.recount(p.notableIn(v), notable{})
		p.forget(v)
		d := extend(&t.Fired)
		*d = wire.Fired{VehicleID: v.id, FinalPoints: d.FinalPoints[:0], Forgotten: true}
	}
}

// undo is what a vehicle was before the step, in case the step panics.
type undo struct {
	vehicle  vehicle
	sessions sessions
	// closed are the open fixes that were taken from the front of the window.
	closed []wire.Fix
	// merged is what was left of it when fixes were merged into it; otherwise
	// fixes were only added at its end.
	merged []wire.Fix
	// forgotten are the entries of the memory's ring that pushes replaced.
	forgotten []uint64
}

func (u *undo) reset() {
	u.closed, u.merged, u.forgotten = u.closed[:0], u.merged[:0], u.forgotten[:0]
}

func (u *undo) save(v *vehicle) {
	u.vehicle = *v
	u.sessions = append(u.sessions[:0], v.sessions...)
}

// willMerge is called before fixes are merged into the window.
func (u *undo) willMerge(v *vehicle) {
	u.merged = v.window.appendTo(u.merged[:0])
}

func (u *undo) restore(v *vehicle) {
	window := u.vehicle.window
	window.put(0, u.closed)
	window.put(len(u.closed), u.merged)
	sessions := append(u.vehicle.sessions[:0], u.sessions...)
	*v = u.vehicle
	v.window, v.sessions = window, sessions
	v.savepoints = nil // the step has changed them
	// Of what was replaced, only so much was there before the step.
	n := len(v.memory.entries)
	for i, entry := range u.forgotten[:min(n, len(u.forgotten))] {
		v.memory.entries[(int(v.memory.oldest)+i)%n] = entry
	}
}

// remember pushes a fix into the vehicle's memory; mark is setAside or 0.
func (p *Partition) remember(v *vehicle, f *wire.Fix, mark uint64) {
	if forgotten, full := v.memory.push(entryOf(f)|mark, p.settings.RememberFixes); full {
		p.undo.forgotten = append(p.undo.forgotten, forgotten)
	}
}

// conflicting returns whether two phones speak for the vehicle.
func (p *Partition) conflicting(v *vehicle) bool { return p.streamMS < v.conflictUntilMS }

// correctedMS is the time of the newest fix without its device's learned offset.
func (v *vehicle) correctedMS() int64 { return v.newestMS - v.clock.aheadMS() }

// isFresh returns whether the newest fix is recent enough at a stream time. One
// that is far ahead is of no time that can be, and not fresh.
func (p *Partition) isFresh(v *vehicle, atMS int64) bool {
	age := atMS - v.correctedMS()
	return v.newestMS > 0 && age >= -p.settings.MaxAheadMS && age <= p.settings.DispatchMaxAgeMS
}

// view fills what readers see of the vehicle.
func (p *Partition) view(v *vehicle, out *wire.View) {
	*out = wire.View{
		VehicleID:          v.id,
		DeviceTimeMS:       v.newestMS,
		SeenTimeMS:         v.seenMS,
		Estimate:           v.last,
		Availability:       v.availability,
		Counts:             v.counts,
		Conflicting:        p.conflicting(v),
		DeviceClockAheadMS: v.clock.aheadMS(),
		OdometerM:          v.givenUpM + v.odometerM,
		Diagnosis:          v.diagnosis,
	}
	out.Dispatchable = p.canBeAsked(v)
	if held := v.held(); held != nil {
		out.Reservation, out.Dispatchable = held, false
		out.DerivedAvailability = starlingv1.Availability_AVAILABILITY_RESERVED
	}
	if v.newestMS > 0 {
		cell, err := v.cell.Cell(v.last.LatDeg, v.last.LonDeg, p.settings.H3Resolution)
		if err != nil {
			// The step panics, which makes the record a poisoned one: a filter
			// that returns what is no position must not be published.
			panic(err)
		}
		out.Cell = uint64(cell)
	}
	if v.attributes != nil {
		out.HasAttributes = true
		out.Attributes = *v.attributes
	}
}
