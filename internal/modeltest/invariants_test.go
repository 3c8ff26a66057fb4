package modeltest

import (
	"fmt"
	"slices"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

const (
	free     = starlingv1.Availability_AVAILABILITY_FREE
	busy     = starlingv1.Availability_AVAILABILITY_BUSY
	unstated = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
	offline  = starlingv1.Availability_AVAILABILITY_OFFLINE
)

// timersPerRecord is how many vehicles' timers one record fires at most.
const timersPerRecord = 64

// audit holds what a partition publishes to what readers rely on, whatever the
// step's rules are: it knows no model. Feed it every record of `locations` with
// its track; what is wrong first stands in failure.
type audit struct {
	settings trackerstep.Settings
	vehicles map[string]*audited
	// streamMS is the stream time of the last track; stamps are those since the
	// last one that was near it.
	streamMS int64
	stamps   []int64
	// busy: the last record fired as many timers as a record may.
	crowded bool
	failure string
	seen    seen
}

// seen counts what the audit has met, so that one that checks nothing shows.
type seen struct {
	believedAhead, believedBack, setAside, conflicting, dispatchable, aged, returned int
	repeated, forgottenSoon                                                          int
}

// audited is what was published of one vehicle.
type audited struct {
	// pushes counts the fixes that were given to the vehicle's memory, and
	// known has the number of its push for each device time, open for an open
	// fix.
	pushes int
	known  map[int64]int
	// accepted has every device time that ever was.
	accepted map[int64]bool
	stated   map[uint64]map[starlingv1.Availability]bool
	entered  map[uint64]bool
	// recent are the sessions by when they reported last, newest first.
	recent []uint64
	view   wire.View
	// timed: stream time has gone evenly since the view was published, and so
	// has to take its word back in time.
	timed bool
}

const open = -1

func newAudit(s trackerstep.Settings) *audit {
	return &audit{settings: s, vehicles: map[string]*audited{}}
}

func (a *audit) failf(offset int64, format string, args ...any) {
	if a.failure == "" {
		a.failure = fmt.Sprintf("offset %d: ", offset) + fmt.Sprintf(format, args...)
	}
}

// track takes the next record and its track.
func (a *audit) track(rec eventlog.Stored, t *wire.Track) {
	var l wire.Location
	poisoned := l.Unmarshal(rec.Value) != nil || l.Kind == wire.KindReport && !t.HasLive && t.Refusal == 0
	if !poisoned && l.Kind == wire.KindVersionSwitch {
		a.use(l.Switch.Settings)
	}
	pending := a.time(rec, t)
	if t.Refusal != 0 {
		a.refusal(rec.Offset, string(rec.Key), &l.Report, t)
	} else if l.Kind == wire.KindReport && !poisoned {
		a.report(rec.Offset, string(rec.Key), &l.Report, t)
	} else if t.Counts != (wire.FixCounts{}) || len(t.Points)+len(t.FinalPoints)+len(t.LateFixes)+len(t.SetAsideFixes) > 0 {
		a.failf(rec.Offset, "no report, and yet it has fixes")
	}
	for _, d := range t.Fired {
		if pending && !a.crowded && l.Kind != wire.KindVersionSwitch && d.VehicleID != string(rec.Key) {
			a.failf(rec.Offset, "a timer of %s fires while a jump of the stamps is not believed", d.VehicleID)
		}
		a.due(rec.Offset, &d)
	}
	a.crowded = len(t.Fired) == timersPerRecord
	a.agesInTime(rec.Offset)
}

func (a *audit) use(encoded []byte) {
	s, err := trackerstep.DecodeSettings(encoded)
	if err != nil {
		panic(err)
	}
	a.settings = s
	for _, v := range a.vehicles {
		v.timed = false
		v.forget(s.RememberFixes)
	}
}

// forget drops what the memory of so many fixes has surely lost.
func (v *audited) forget(most int) {
	for ms, push := range v.known {
		if push != open && push <= v.pushes-most {
			delete(v.known, ms)
		}
	}
}

// time checks stream time: it follows the stamps, never back, except when they
// have stayed beyond a jump for clock_settle of their own time. It returns true
// while a jump is pending.
func (a *audit) time(rec eventlog.Stored, t *wire.Track) (pending bool) {
	stamp, before := rec.AppendTimeMS, a.streamMS
	if (t.AppendTimeMS == 0) != (stamp == t.ClockMS) || t.AppendTimeMS != 0 && t.AppendTimeMS != stamp {
		a.failf(rec.Offset, "append time %d, stream time %d, published as %d", stamp, t.ClockMS, t.AppendTimeMS)
	}
	a.streamMS = t.ClockMS
	jump := func(ms int64) bool { return max(ms-before, before-ms) > a.settings.ClockJumpMS }
	switch {
	case before == 0:
		if t.ClockMS != stamp {
			a.failf(rec.Offset, "stream time begins at %d, the stamp is %d", t.ClockMS, stamp)
		}
	case !jump(stamp):
		a.stamps = nil
		if t.ClockMS != max(before, stamp) {
			a.failf(rec.Offset, "stream time %d after %d and the stamp %d", t.ClockMS, before, stamp)
		}
	case t.ClockMS == before:
		a.stamps = append(a.stamps, stamp)
		return true
	default:
		a.believed(rec.Offset, before, stamp, t.ClockMS)
	}
	return false
}

func (a *audit) believed(offset, before, stamp, now int64) {
	settled := false
	for _, earlier := range a.stamps {
		settled = settled || (earlier > before) == (stamp > before) && stamp-earlier >= a.settings.ClockSettleMS
	}
	if now != stamp || !settled {
		a.failf(offset, "stream time jumps from %d to %d, the stamp is %d, after the stamps %v", before, now, stamp, a.stamps)
	}
	if now > before {
		a.seen.believedAhead++
	} else {
		a.seen.believedBack++
	}
	a.stamps = nil
	for _, v := range a.vehicles {
		v.timed = false
	}
}

func (a *audit) due(offset int64, d *wire.Fired) {
	v := a.vehicles[d.VehicleID]
	if v == nil {
		a.failf(offset, "a timer of %s, which is unknown", d.VehicleID)
		return
	}
	for _, p := range d.FinalPoints {
		v.push(p.Fix.DeviceTimeMS)
	}
	if d.HasLive {
		if d.Live.SeenTimeMS == v.view.SeenTimeMS {
			a.seen.repeated++
		}
		if d.Live.Availability != v.view.Availability {
			a.failf(offset, "%s becomes %v by time", d.VehicleID, d.Live.Availability)
		}
		a.view(offset, v, &d.Live)
	}
	if d.Forgotten {
		if a.streamMS-v.view.SeenTimeMS < a.settings.ForgetAfterMS {
			a.seen.forgottenSoon++
		}
		delete(a.vehicles, d.VehicleID)
	}
}

// refusal: a report is refused as a whole, when its vehicle is unknown and the
// partition is full.
func (a *audit) refusal(offset int64, id string, r *wire.Report, t *wire.Track) {
	if a.vehicles[id] != nil || len(a.vehicles) < a.settings.MaxVehicles {
		a.failf(offset, "%s is refused: known %v, among %d vehicles", id, a.vehicles[id] != nil, len(a.vehicles))
	}
	if t.HasLive || t.Counts != (wire.FixCounts{Refused: int64(len(r.Fixes))}) || len(t.Points)+len(t.FinalPoints)+len(t.LateFixes)+len(t.SetAsideFixes) > 0 {
		a.failf(offset, "%s is refused, and yet there is something of it: %+v", id, t.Counts)
	}
}

func (v *audited) push(deviceTimeMS int64) {
	v.pushes++
	v.known[deviceTimeMS] = v.pushes
}

// report checks what a report did to its vehicle.
func (a *audit) report(offset int64, id string, r *wire.Report, t *wire.Track) {
	v, n := a.vehicles[id], t.Counts
	// Its counts begin anew when the record finds the vehicle forgotten.
	if v == nil || v.view.Counts != (wire.FixCounts{}) && t.Live.Counts == n {
		v = &audited{known: map[int64]int{}, accepted: map[int64]bool{}, stated: map[uint64]map[starlingv1.Availability]bool{}, entered: map[uint64]bool{}}
		a.vehicles[id] = v
	}
	if sum := n.Accepted + n.Duplicate + n.Conflict + n.Late + n.SetAside; sum != int64(len(r.Fixes)) ||
		n.Accepted != int64(len(t.Points)) || n.Late != int64(len(t.LateFixes)) || n.SetAside != int64(len(t.SetAsideFixes)) {
		a.failf(offset, "%d fixes, counts %+v, %d points, %d late, %d set aside", len(r.Fixes), n, len(t.Points), len(t.LateFixes), len(t.SetAsideFixes))
	}
	a.seen.setAside += len(t.SetAsideFixes)
	a.once(offset, id, v, t)
	a.availability(offset, id, v, r, t.Live.Availability)
	a.view(offset, v, &t.Live)
}

// once: no fix is accepted whose device time is open or surely remembered.
// Which of the record's own pushes came before it was judged a track does not
// tell, so they all count as earlier.
func (a *audit) once(offset int64, id string, v *audited, t *wire.Track) {
	after := v.pushes + len(t.FinalPoints) + len(t.LateFixes) + len(t.SetAsideFixes) + int(t.Counts.Conflict)
	here, closed := map[int64]bool{}, map[int64]bool{}
	for _, p := range t.Points {
		here[p.Fix.DeviceTimeMS] = true
	}
	for _, p := range t.FinalPoints {
		_, known := v.known[p.Fix.DeviceTimeMS] // not if it is forgotten by this record
		closed[p.Fix.DeviceTimeMS] = known || here[p.Fix.DeviceTimeMS]
	}
	clear(here)
	for _, p := range t.Points {
		ms := p.Fix.DeviceTimeMS
		push, known := v.known[ms]
		if known && push == open && closed[ms] {
			push = v.pushes + 1
		}
		if here[ms] || known && (push == open || push > after-a.settings.RememberFixes) {
			a.failf(offset, "%s: the fix of %d is accepted again: push %d of %d", id, ms, push, after)
		}
		here[ms], v.accepted[ms] = true, true
	}
	v.pushes++
	for ms := range here {
		if !closed[ms] {
			v.known[ms] = open
		}
	}
	for ms, was := range closed {
		if was {
			v.known[ms] = v.pushes
		}
	}
	for i := range t.LateFixes {
		if ms := t.LateFixes[i].DeviceTimeMS; !here[ms] {
			v.known[ms] = v.pushes
		}
	}
	v.pushes = max(v.pushes, after)
	v.forget(a.settings.RememberFixes)
}

// availability: it becomes another only by a report that states it, except that
// a session which was not seen before brings what it has stated.
func (a *audit) availability(offset int64, id string, v *audited, r *wire.Report, now starlingv1.Availability) {
	states := r.Availability
	if states != unstated && states != offline && states != free {
		states = busy
	}
	if v.stated[r.SessionID] == nil {
		v.stated[r.SessionID] = map[starlingv1.Availability]bool{}
	}
	v.stated[r.SessionID][states] = true
	// The tracker may have forgotten a session when three others came since.
	if at := slices.Index(v.recent, r.SessionID); at >= 0 && at < 3 {
		v.recent = slices.Delete(v.recent, at, at+1)
	} else {
		v.entered[r.SessionID] = false
	}
	v.recent = slices.Insert(v.recent, 0, r.SessionID)
	if now == v.view.Availability {
		return
	}
	switch {
	case now == unstated:
		a.seen.returned++
	case now != free && now != offline && now != busy:
		a.failf(offset, "%s is %v, which no phone may state", id, now)
	case now == states:
	case !v.entered[r.SessionID] && v.stated[r.SessionID][now]:
	default:
		a.failf(offset, "%s becomes %v by a report that states %v", id, now, r.Availability)
	}
	v.entered[r.SessionID] = true
}

// view checks a view that is published, whether by a report or by time.
func (a *audit) view(offset int64, v *audited, w *wire.View) {
	switch {
	case w.DeviceTimeMS != 0 && !v.accepted[w.DeviceTimeMS]:
		a.failf(offset, "%s stands where a fix of %d says that was never accepted", w.VehicleID, w.DeviceTimeMS)
	case w.Dispatchable && (w.Conflicting || w.Availability != free || w.DeviceTimeMS == 0 || a.ageMS(w) > a.settings.DispatchMaxAgeMS):
		a.failf(offset, "%s is dispatchable: %+v", w.VehicleID, w)
	case w.DerivedAvailability != 0:
		a.failf(offset, "%s is %v by a ride, and there are none", w.VehicleID, w.DerivedAvailability)
	}
	if w.Dispatchable {
		a.seen.dispatchable++
	}
	if w.Conflicting {
		a.seen.conflicting++
	}
	if v.view.Dispatchable && !w.Dispatchable && w.Availability == free && !w.Conflicting {
		a.seen.aged++
	}
	v.view, v.timed = *w, true
}

// ageMS is the age of a view's newest fix by stream time.
func (a *audit) ageMS(w *wire.View) int64 {
	return a.streamMS - (w.DeviceTimeMS - w.DeviceClockAheadMS)
}

// agesInTime: no vehicle is left dispatchable that has been silent too long.
func (a *audit) agesInTime(offset int64) {
	if a.crowded {
		return
	}
	for id, v := range a.vehicles {
		if v.timed && v.view.Dispatchable && a.ageMS(&v.view) > a.settings.DispatchMaxAgeMS {
			a.failf(offset, "%s is published as dispatchable with an age of %d ms", id, a.ageMS(&v.view))
		}
	}
}
