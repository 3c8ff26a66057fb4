package slow

import (
	"math"
	"slices"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// report is the way of one report through its vehicle.
func (m *Model) report(id string, r *wire.Report, t *wire.Track) {
	stampMS := t.ClockMS
	if t.AppendTimeMS != 0 {
		stampMS = t.AppendTimeMS
	}
	v := m.vehicles[id]
	if v == nil {
		if len(m.vehicles) >= m.settings.MaxVehicles {
			refuse(r, t)
			return
		}
		v = &vehicle{id: id, seenMS: m.stream.ms}
	}
	t.SessionID, t.Sequence = r.SessionID, r.Sequence
	t.FinalPoints = append(t.FinalPoints, m.closeIfSilent(v)...)
	if m.stream.ms >= m.forgotten(v) {
		v = &vehicle{id: id}
	}
	m.vehicles[id] = v

	fixes := slices.Clone(r.Fixes)
	slices.SortStableFunc(fixes, byTime)
	newestMS := int64(0)
	if len(fixes) > 0 {
		newestMS = fixes[len(fixes)-1].DeviceTimeMS
	}
	p := v.take(r, m.stream.ms)
	m.endConflict(v)
	now := m.deviceNow(v, stampMS)
	m.decide(v, p, fixes, newestMS, now)
	limitMS := m.limit(v, p, fixes, now)
	if firstMS, hasJumped := m.jumped(v, p, fixes, limitMS, now); hasJumped {
		t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, math.MaxInt64)...)
		v.startAnew(p.session, r.Sequence)
		v.authorityFixMS = firstMS
		for _, s := range v.sessions {
			s.lastWordMS = firstMS
		}
		p.fenced = false
	}
	before := v.newestMS
	fresh := m.judge(v, fixes, p, limitMS, t)
	m.insert(v, fresh, t)
	if p.authoritative && !p.recognised && newestMS > before && slices.ContainsFunc(fresh, func(f wire.Fix) bool { return f.DeviceTimeMS == newestMS }) {
		m.observe(&v.device, newestMS)
	}
	v.describe(r, p)
	v.counts.Accepted += t.Counts.Accepted
	v.counts.Duplicate += t.Counts.Duplicate
	v.counts.Conflict += t.Counts.Conflict
	v.counts.Late += t.Counts.Late
	v.counts.SetAside += t.Counts.SetAside
	v.seenMS, v.publishedMS, v.changedMS, v.jumpFirstMS = m.stream.ms, m.stream.ms, m.stream.ms, m.stream.firstMS
	if !p.recognised {
		v.newReports++
	}
	t.HasLive, t.Live = true, m.view(v)
}

// refuse turns a whole report away.
func refuse(r *wire.Report, t *wire.Track) {
	t.Refusal, t.Counts.Refused = starlingv1.Refusal_REFUSAL_PARTITION_FULL, int64(len(r.Fixes))
	t.SessionID, t.Sequence = r.SessionID, r.Sequence
	fixes := slices.Clone(r.Fixes)
	slices.SortStableFunc(fixes, byTime)
	for _, f := range fixes {
		t.Outcomes = append(t.Outcomes, wire.FixOutcome{Rule: starlingv1.OutcomeRule_OUTCOME_RULE_PARTITION_FULL, Fix: f})
	}
}

// judge counts a report's fixes, given by time, and answers those that are new.
func (m *Model) judge(v *vehicle, fixes []wire.Fix, p *place, limitMS int64, t *wire.Track) (fresh []wire.Fix) {
	most := m.settings.RememberFixes
	copyOf := func(f wire.Fix, rule starlingv1.OutcomeRule) {
		t.Counts.Duplicate++
		t.Outcomes = append(t.Outcomes, wire.FixOutcome{Rule: rule, Fix: f})
	}
	setAside := func(f wire.Fix, rule starlingv1.OutcomeRule) {
		if p.recognised {
			copyOf(f, starlingv1.OutcomeRule_OUTCOME_RULE_KNOWN_REPORT)
			return
		}
		t.SetAsideRules = append(t.SetAsideRules, rule)
		t.Counts.SetAside++
		t.SetAsideFixes = append(t.SetAsideFixes, f)
		v.memory.push(f, true, most)
	}
	for _, f := range fixes {
		open := v.find(f.DeviceTimeMS)
		for i := range fresh {
			if fresh[i].DeviceTimeMS == f.DeviceTimeMS {
				open = &fresh[i]
			}
		}
		time, content := v.memory.knows(f)
		switch {
		case open != nil && same(*open, f), content:
			copyOf(f, starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT)
		case open != nil, time:
			t.Counts.Conflict++
			t.Outcomes = append(t.Outcomes, wire.FixOutcome{Rule: starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT, Fix: f})
			v.memory.push(f, false, most)
		case !p.authoritative && m.isOfAnother(v, p, f):
			setAside(f, starlingv1.OutcomeRule_OUTCOME_RULE_SESSION_SHUT_OUT)
		case (f.DeviceTimeMS < v.floorMS || p.fenced) && p.recognised:
			copyOf(f, starlingv1.OutcomeRule_OUTCOME_RULE_KNOWN_REPORT)
		case f.DeviceTimeMS < v.floorMS || p.fenced:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, f)
			rule := starlingv1.OutcomeRule_OUTCOME_RULE_DEVICE_TIME_GIVEN_UP
			if f.DeviceTimeMS < v.floorMS {
				rule = starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW
			}
			t.LateRules = append(t.LateRules, rule)
			v.memory.push(f, false, most)
		case f.DeviceTimeMS > limitMS:
			setAside(f, starlingv1.OutcomeRule_OUTCOME_RULE_STAMPED_AHEAD)
		default:
			t.Counts.Accepted++
			fresh = append(fresh, f)
		}
	}
	return fresh
}

// insert filters with the new fixes and closes what leaves the window.
func (m *Model) insert(v *vehicle, fresh []wire.Fix, t *wire.Track) {
	if len(fresh) == 0 {
		return
	}
	for _, f := range fresh {
		v.fixes = append(v.fixes, knownFix{Fix: f})
	}
	slices.SortFunc(v.fixes, func(a, b knownFix) int { return byTime(a.Fix, b.Fix) })
	points, state := m.filtered(v)
	for _, point := range points {
		if slices.Contains(fresh, point.Fix) {
			t.Points = append(t.Points, point)
		}
		v.last, v.newestMS = point.Estimate, point.Fix.DeviceTimeMS
	}
	v.metres, v.diagnosis = state.OdometerM(), diagnosisOf(&state)
	floor := max(v.floorMS, v.newestMS-m.settings.WindowMS)
	open := slices.DeleteFunc(slices.Clone(v.fixes), knownFix.isFinal)
	if n := len(open); n > m.settings.WindowMaxFixes {
		floor = max(floor, open[n-m.settings.WindowMaxFixes].DeviceTimeMS)
	}
	t.FinalPoints = append(t.FinalPoints, m.closeBefore(v, floor)...)
}

// closeBefore makes the fixes before a time final, remembers them and answers
// their points.
func (m *Model) closeBefore(v *vehicle, floorMS int64) []wire.TrackPoint {
	var final []wire.TrackPoint
	points, _ := m.filtered(v)
	for i, p := range points {
		if f := &v.fixes[i]; !f.isFinal() && f.DeviceTimeMS < floorMS {
			f.finalBy = m.filter
			v.memory.push(f.Fix, false, m.settings.RememberFixes)
			final = append(final, p)
		}
	}
	v.floorMS = max(v.floorMS, min(floorMS, v.newestMS+1))
	return final
}
