package slow

import (
	"cmp"
	"slices"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxSessions is how many sessions of a vehicle are remembered.
const maxSessions = 4

// session is one life of a device's report queue.
type session struct {
	id             uint64
	seen           map[int64]bool
	highest, fence int64 // reports up to fence belong to a device time that was given up
	seenMS         int64 // stream time of its last report
	entered        bool  // it has been the authoritative one
	aheadMS        int64 // how far its last report with fixes was stamped ahead of now
	lastWordMS     int64 // newest device time of the report that took the authority from it
	// What it stated last, 0 and nil for nothing.
	availability                   starlingv1.Availability
	attributes                     *wire.Attributes
	availabilitySeq, attributesSeq int64
}

// place is where a report stands among the vehicle's reports.
type place struct {
	*session
	recognised, advances, fenced bool
	// authoritative: the vehicle is what this session reports. opened and
	// returned: by this report, for the first time or again.
	authoritative, opened, returned bool
	// wasAheadMS is how far the session's last report before this one was
	// stamped ahead.
	wasAheadMS int64
}

// take finds or opens the report's session; a new one takes the place of the
// one that has been silent longest, but never of the authoritative one.
func (v *vehicle) take(r *wire.Report, streamMS int64) *place {
	i := slices.IndexFunc(v.sessions, func(s *session) bool { return s.id == r.SessionID })
	if i < 0 {
		if len(v.sessions) == maxSessions {
			v.sessions = v.sessions[:maxSessions-1]
		}
		i = len(v.sessions)
		v.sessions = append(v.sessions, &session{id: r.SessionID, seen: map[int64]bool{}})
	}
	s := v.sessions[i]
	p := &place{
		session: s, advances: r.Sequence > s.highest,
		recognised: s.seen[r.Sequence] || r.Sequence < s.highest-64,
		fenced:     r.Sequence <= s.fence, wasAheadMS: s.aheadMS,
	}
	s.seen[r.Sequence], s.highest, s.seenMS = true, max(s.highest, r.Sequence), streamMS
	return p
}

// decide states which session is authoritative from this report on, and whether
// two of them speak for the vehicle. newestMS is the report's newest device
// time, 0 without fixes.
func (m *Model) decide(v *vehicle, p *place, fixes []wire.Fix, newestMS int64, now deviceNow) {
	tolerance := m.settings.AheadToleranceMS
	first := v.sessions[0]
	silent := m.isSilent(first)
	if newestMS > 0 {
		p.aheadMS = newestMS - m.lowMS()
	}
	latestMS := now.ms + tolerance + max(0, now.aheadMS(v))
	if silent {
		latestMS = now.ms + m.settings.MaxAheadMS
	}
	advances := newestMS > v.newestMS || v.newestMS > m.lowMS()+tolerance && now.mayBe(newestMS)
	current := newestMS > 0 && newestMS <= latestMS && advances
	switch {
	case !first.entered: // the vehicle's first report
		m.takeOver(v, p, newestMS, now)
	case p.session == first, p.recognised:
	case !p.entered && (current || v.newestMS == 0 && newestMS == 0),
		p.entered && current && silent,
		p.entered && current && first.aheadMS > tolerance && newestMS <= m.lowMS()+tolerance:
		m.takeOver(v, p, newestMS, now)
	case !silent && slices.ContainsFunc(fixes, func(f wire.Fix) bool { return m.isOfAnother(v, p, f) && !v.isCopy(f) }):
		v.conflictUntilMS = m.stream.ms + m.settings.SessionSilenceMS
	}
	p.authoritative = v.sessions[0] == p.session
	v.order()
}

// isOfAnother reports whether a fix was taken when the report's session, which is
// not authoritative, spoke for the vehicle no more.
func (m *Model) isOfAnother(v *vehicle, p *place, f wire.Fix) bool {
	since := v.authorityFixMS
	if p.entered {
		since = p.lastWordMS
	}
	return f.DeviceTimeMS-since > m.settings.AheadToleranceMS
}

// isCopy reports whether the fix is known with this content.
func (v *vehicle) isCopy(f wire.Fix) bool {
	open := v.find(f.DeviceTimeMS)
	_, content := v.memory.knows(f)
	return content || open != nil && same(*open, f)
}

// order puts the sessions behind the first by when they reported last.
func (v *vehicle) order() {
	slices.SortStableFunc(v.sessions[1:], func(a, b *session) int { return cmp.Compare(b.seenMS, a.seenMS) })
}

func (m *Model) isSilent(s *session) bool {
	return m.stream.ms-s.seenMS >= m.settings.SessionSilenceMS
}

// takeOver makes the report's session the authoritative one.
func (m *Model) takeOver(v *vehicle, p *place, newestMS int64, now deviceNow) {
	p.opened, p.returned = !p.entered, p.entered
	v.sessions[0].lastWordMS = newestMS
	p.authoritative, p.entered = true, true
	v.sessions = slices.DeleteFunc(v.sessions, func(s *session) bool { return s == p.session })
	v.sessions = slices.Insert(v.sessions, 0, p.session)
	v.order()
	v.authorityFixMS = newestMS
	device := v.device
	v.doubtNothing()
	goesOn := func(nowMS int64) bool {
		off := newestMS - nowMS - device.learnedMS()
		return -m.settings.AheadToleranceMS <= off && off <= m.settings.AheadToleranceMS
	}
	if newestMS > 0 && device.observations > 0 && (goesOn(now.ms) || goesOn(m.lowMS())) {
		v.device = device // the same clock
	}
}

// describe takes what the report states besides fixes.
func (v *vehicle) describe(r *wire.Report, p *place) {
	statesAvailability := !p.recognised && r.Availability != 0 && r.Sequence > p.availabilitySeq
	if statesAvailability {
		p.availability, p.availabilitySeq = r.Availability, r.Sequence
		if r.Availability == starlingv1.Availability_AVAILABILITY_RESERVED || r.Availability == starlingv1.Availability_AVAILABILITY_ON_RIDE {
			p.availability = starlingv1.Availability_AVAILABILITY_BUSY
		}
	}
	statesAttributes := !p.recognised && r.HasAttributes && r.Sequence > p.attributesSeq
	if statesAttributes {
		p.attributes, p.attributesSeq = &r.Attributes, r.Sequence
	}
	if p.returned {
		v.availability = 0
	}
	if p.authoritative && (statesAvailability || p.opened && p.availabilitySeq > 0) {
		v.availability = p.availability
	}
	if p.authoritative && (statesAttributes || p.opened && p.attributesSeq > 0) {
		v.attributes = p.attributes
	}
}
