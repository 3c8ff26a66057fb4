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
		t.Dues = append(t.Dues, m.settle(v.vehicle))
	}
}

// timer is when time next does something to the vehicle.
func (m *Model) timer(v *vehicle) int64 {
	ms := min(m.publication(v), v.seenMS+m.settings.ForgetAfterMS)
	if slices.ContainsFunc(v.fixes, func(f knownFix) bool { return !f.isFinal() }) {
		ms = min(ms, v.seenMS+m.settings.WindowMS)
	}
	return ms
}

// publication is when the vehicle is published anew without a report: after a
// while, when a conflict ends, and when it is too old to be dispatched.
func (m *Model) publication(v *vehicle) int64 {
	ms := v.refreshedMS + m.settings.RepeatIntervalMS
	if v.conflictUntilMS != 0 {
		ms = min(ms, v.conflictUntilMS)
	}
	if v.conflictUntilMS == 0 && m.isDispatchable(v, v.refreshedMS) {
		ms = min(ms, v.newestMS-v.device.learnedMS()+m.settings.DispatchMaxAgeMS+1)
	}
	return ms
}

// isDispatchable reports whether the vehicle can be offered a ride at a stream time.
func (m *Model) isDispatchable(v *vehicle, streamMS int64) bool {
	age := streamMS - (v.newestMS - v.device.learnedMS())
	return v.availability == starlingv1.Availability_AVAILABILITY_FREE && streamMS >= v.conflictUntilMS &&
		v.newestMS > 0 && -m.settings.MaxAheadMS <= age && age <= m.settings.DispatchMaxAgeMS
}

func (m *Model) settle(v *vehicle) wire.Due {
	d := wire.Due{VehicleID: v.id, FinalPoints: m.closeIfSilent(v)}
	if m.stream.ms-v.seenMS >= m.settings.ForgetAfterMS {
		d.Forgotten = true
		d.FinalPoints = append(d.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
		delete(m.vehicles, v.id)
		return d
	}
	if m.publication(v) <= m.stream.ms {
		m.endConflict(v)
		d.HasLive, d.Live = true, m.view(v)
		v.refreshedMS = m.stream.ms
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
