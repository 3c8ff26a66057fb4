package slow

import (
	"cmp"
	"math"
	"slices"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// timersPerRecord is how many other vehicles one record settles at most.
const timersPerRecord = 64

func (m *Model) settleOthers(t *wire.Track) {
	if m.stream.ms < m.quietUntilMS {
		return
	}
	type expired struct {
		ms int64
		*vehicle
	}
	var due []expired
	m.quietUntilMS = math.MaxInt64
	for _, v := range m.vehicles {
		ms := m.timer(v)
		m.quietUntilMS = min(m.quietUntilMS, ms)
		if ms <= m.stream.ms {
			due = append(due, expired{ms, v})
		}
	}
	if len(due) == 0 {
		return
	}
	m.quietUntilMS = 0
	slices.SortFunc(due, func(a, b expired) int { return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.id, b.id)) })
	for _, v := range due[:min(timersPerRecord, len(due))] {
		t.Fired = append(t.Fired, m.settle(v.vehicle))
	}
}

// timer is when time next does something to the vehicle.
func (m *Model) timer(v *vehicle) int64 {
	ms := min(m.repetition(v), m.change(v), m.forgotten(v))
	if v.hasOpen() {
		ms = min(ms, v.seenMS+m.settings.WindowMS)
	}
	return ms
}

// forgotten is when the vehicle is, if it stays silent.
func (m *Model) forgotten(v *vehicle) int64 {
	if v.newReports < 2 && m.settings.ForgetSingleAfterMS < m.settings.ForgetAfterMS {
		return v.seenMS + m.settings.ForgetSingleAfterMS
	}
	return v.seenMS + m.settings.ForgetAfterMS
}

// repetition is when a silent vehicle is published again: of the moments that lie
// ever further apart, the last that has come if it was not published since, or
// else the next.
func (m *Model) repetition(v *vehicle) int64 {
	last, next, apart := v.seenMS, v.seenMS+m.settings.RepeatIntervalMS, m.settings.RepeatIntervalMS
	for next <= m.stream.ms {
		apart = min(apart*2, m.settings.RepeatMaxIntervalMS)
		last, next = next, next+apart
	}
	if last > v.publishedMS {
		return last
	}
	return next
}

const never = math.MaxInt64

// change is when the vehicle is published because it becomes another by time:
// its conflict ends, or, being free, it gets too old to be dispatched.
func (m *Model) change(v *vehicle) int64 {
	if v.conflictUntilMS != 0 {
		return v.conflictUntilMS
	}
	tooOldMS := v.newestMS - v.device.learnedMS() + m.settings.DispatchMaxAgeMS + 1
	if v.availability != starlingv1.Availability_AVAILABILITY_FREE || v.newestMS == 0 || tooOldMS <= v.changedMS {
		return never
	}
	return tooOldMS
}

func (v *vehicle) hasOpen() bool {
	return slices.ContainsFunc(v.fixes, func(f knownFix) bool { return !f.isFinal() })
}

// isDispatchable reports whether the vehicle can be offered a ride at a stream time.
func (m *Model) isDispatchable(v *vehicle, streamMS int64) bool {
	age := streamMS - (v.newestMS - v.device.learnedMS())
	return v.availability == starlingv1.Availability_AVAILABILITY_FREE && streamMS >= v.conflictUntilMS &&
		v.newestMS > 0 && -m.settings.MaxAheadMS <= age && age <= m.settings.DispatchMaxAgeMS
}

func (m *Model) settle(v *vehicle) wire.Fired {
	repeats, hadOpen := m.repetition(v) <= m.stream.ms, v.hasOpen()
	d := wire.Fired{VehicleID: v.id, FinalPoints: m.closeIfSilent(v)}
	if m.stream.ms >= m.forgotten(v) {
		d.Forgotten = true
		d.FinalPoints = append(d.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
		delete(m.vehicles, v.id)
		return d
	}
	changes := m.change(v) <= m.stream.ms
	if changes || repeats {
		m.endConflict(v)
		d.HasLive, d.Live = true, m.view(v)
		v.publishedMS = m.stream.ms
		if changes || hadOpen && !v.hasOpen() {
			v.changedMS = m.stream.ms
		}
	}
	return d
}

func (m *Model) endConflict(v *vehicle) {
	if m.stream.ms >= v.conflictUntilMS {
		v.conflictUntilMS = 0
	}
}

func (m *Model) closeIfSilent(v *vehicle) []wire.TrackPoint {
	if m.stream.ms-v.seenMS < m.settings.WindowMS {
		return nil
	}
	return m.closeBefore(v, math.MaxInt64)
}
