package step

import (
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Two phones may report for one vehicle: a driver changes devices, an app is
// started anew, a stranger sends. One session is authoritative: what it states
// is what the vehicle reports, and another's fixes count only as far as they
// belong to the time before it took over. A session takes over with its first
// report whose newest fix advances the vehicle and is not stamped ahead. One
// that was authoritative before takes over again only when the present one is
// silent or stamped ahead; until then the vehicle is conflicting.

// decideAuthority judges who is authoritative after the report; fixes are its
// fixes by device time.
func (p *Partition) decideAuthority(v *vehicle, at *standing, fixes []wire.Fix, now present) {
	newestMS := int64(0)
	if len(fixes) > 0 {
		newestMS = fixes[len(fixes)-1].DeviceTimeMS
	}
	s, authority := &v.sessions[at.slot], &v.sessions[0]
	if newestMS > 0 {
		s.aheadMS = newestMS - now.lowMS
	}
	switch {
	case at.authoritative && s.entered:
	case at.authoritative: // the vehicle's first
		s.entered = true
		v.authorityFixMS = newestMS
	case at.recognised:
	case !s.entered && newestMS == 0 && v.newestMS == 0,
		p.isCurrent(v, newestMS, now) && p.mayTakeOver(v, s, newestMS, now):
		p.takeOver(v, at, newestMS, now)
	case !p.isSilent(authority) && p.newestNews(v, fixes) > p.untilMS(v, s):
		v.conflictUntilMS = p.streamMS + p.settings.SessionSilenceMS
	}
}

// untilMS is the latest device time at which a session that is not authoritative
// spoke for the vehicle, or may have before any other did: up to when another
// took over from it, and if it never was authoritative, up to when the present
// one took over.
func (p *Partition) untilMS(v *vehicle, s *session) int64 {
	if s.entered {
		return s.untilMS + p.settings.AheadToleranceMS
	}
	return v.authorityFixMS + p.settings.AheadToleranceMS
}

// newestNews is the device time of the newest fix that is no copy, 0 for none: an
// app that sends stored fixes again in a new session is no second phone.
func (p *Partition) newestNews(v *vehicle, fixes []wire.Fix) int64 {
	p.accepted = p.accepted[:0]
	for i := len(fixes) - 1; i >= 0; i-- {
		if _, same := p.recognise(v, &fixes[i]); !same {
			return fixes[i].DeviceTimeMS
		}
	}
	return 0
}

func (p *Partition) isSilent(s *session) bool {
	return p.streamMS-s.seenMS >= p.settings.SessionSilenceMS
}

// isCurrent returns whether a report of another session is of the present: its
// newest fix is not stamped ahead and advances the vehicle, or the vehicle is
// held ahead and the fix agrees with the stamps. When the authoritative session
// is silent, a device that is ahead counts too: its fixes have to be confirmed.
func (p *Partition) isCurrent(v *vehicle, newestMS int64, now present) bool {
	latest := p.expectedMS(v, now)
	if p.isSilent(&v.sessions[0]) {
		latest = now.nowMS + p.settings.MaxAheadMS
	}
	if newestMS == 0 || newestMS > latest {
		return false
	}
	return newestMS > v.newestMS || v.newestMS > now.lowMS+p.settings.AheadToleranceMS && p.agrees(newestMS, now)
}

// agrees returns whether a device time is recent by the stamps, as far as the
// device's clock is known.
func (p *Partition) agrees(deviceTimeMS int64, now present) bool {
	latest := now.lowMS + p.settings.AheadToleranceMS + max(0, now.learnedMS)
	return deviceTimeMS >= now.lowMS-p.settings.WindowMS && deviceTimeMS <= latest
}

// mayTakeOver returns whether a session whose report is current takes over: one
// that was never authoritative does, one that was only when the present one is
// silent, or ahead while it is not itself.
func (p *Partition) mayTakeOver(v *vehicle, s *session, newestMS int64, now present) bool {
	authority, tolerance := &v.sessions[0], p.settings.AheadToleranceMS
	return !s.entered || p.isSilent(authority) || authority.aheadMS > tolerance && newestMS <= now.lowMS+tolerance
}

// takeOver makes the report's session the authoritative one. One that opens
// brings what it has stated. One that returns does not: the vehicle's
// availability is unknown until it states one anew.
func (p *Partition) takeOver(v *vehicle, at *standing, newestMS int64, now present) {
	v.sessions[0].untilMS = newestMS
	v.sessions.promote(at.slot)
	at.slot, at.authoritative = 0, true
	s := &v.sessions[0]
	switch {
	case s.entered:
		v.availability = starlingv1.Availability_AVAILABILITY_UNSPECIFIED
	default:
		if s.availabilitySeq > 0 {
			v.availability = s.availability
		}
		if s.attributesSeq > 0 {
			v.attributes = s.attributes
		}
	}
	s.entered = true
	v.authorityFixMS = newestMS
	v.suspect, v.behind = suspect{}, behind{}
	// Where the fix is in line with the learned clock, the same one goes on.
	learned := v.clock.aheadMS()
	if newestMS == 0 || !p.inLine(newestMS-now.nowMS, learned) && !p.inLine(newestMS-now.lowMS, learned) {
		v.clock = deviceClock{}
	}
}

// inLine returns whether a fix is ahead by about as much as another.
func (p *Partition) inLine(aheadMS, otherMS int64) bool {
	off := aheadMS - otherMS
	return max(off, -off) <= p.settings.AheadToleranceMS
}

// state remembers the availability and attributes of a report in its session,
// and makes them the vehicle's if the session is authoritative.
func (v *vehicle) state(at standing, report *wire.Report) {
	s := &v.sessions[at.slot]
	if report.Availability != starlingv1.Availability_AVAILABILITY_UNSPECIFIED && report.Sequence > s.availabilitySeq {
		s.availability, s.availabilitySeq = reportable(report.Availability), report.Sequence
		if at.authoritative {
			v.availability = s.availability
		}
	}
	if report.HasAttributes && report.Sequence > s.attributesSeq {
		if s.attributes == nil || !sameAttributes(s.attributes, &report.Attributes) {
			attributes := report.Attributes
			attributes.Tags = append([]string(nil), attributes.Tags...)
			s.attributes = &attributes
		}
		s.attributesSeq = report.Sequence
		if at.authoritative {
			v.attributes = s.attributes
		}
	}
}

// reportable returns what a phone may report. RESERVED and ON_RIDE are derived;
// logs of before they were refused hold reports of them.
func reportable(a starlingv1.Availability) starlingv1.Availability {
	switch a {
	case starlingv1.Availability_AVAILABILITY_RESERVED, starlingv1.Availability_AVAILABILITY_ON_RIDE:
		return starlingv1.Availability_AVAILABILITY_BUSY
	}
	return a
}
