package step

import (
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// maxSessions is how many device sessions of a vehicle are remembered.
const maxSessions = 4

// recallDepth is how many sequences below a session's highest are known one by
// one. A client has no more reports unacknowledged.
const recallDepth = limits.MaxUnacknowledgedReports

// session is one run of a device's app, as the vehicle remembers it.
type session struct {
	id uint64
	// highest is the highest sequence that came.
	highest int64
	// below holds which of the sequences below came: bit i is highest-1-i.
	below uint64
	// fence is the highest sequence when the vehicle was last rebased: reports
	// up to it belong to a device time that was given up.
	fence int64
	// seenMS is the stream time of its last report.
	seenMS int64
	// availabilitySeq and attributesSeq are the sequences of the last statements
	// in this session, 0 for none.
	availabilitySeq, attributesSeq int64
	// attributes is what was stated last. It never changes, so views and
	// sessions may share it.
	attributes   *wire.Attributes
	availability starlingv1.Availability
	// entered is true once the session has been authoritative.
	entered bool
	// aheadMS is how far the newest fix of its last report with fixes was ahead
	// of the stamps.
	aheadMS int64
	// untilMS is the newest device time of the report by which another session
	// took over from it, 0 if none has.
	untilMS int64
}

// standing states where a report stands among the vehicle's reports.
type standing struct {
	// slot is the index of the report's session.
	slot int
	// recognised: the same (session, sequence) came before.
	recognised bool
	// authoritative: the report's session is.
	authoritative bool
	// advances: the report has the highest sequence of its session so far.
	advances bool
	// fenced: the report belongs to a device time that was given up.
	fenced bool
	// wasAheadMS is session.aheadMS before the report.
	wasAheadMS int64
}

// sessions is the vehicle's memory of (session, sequence). The first is the
// authoritative one; the others follow by seenMS, latest first. Most vehicles have
// one.
type sessions []session

// observe finds out where a report stands and remembers it. A fifth session
// takes the place of the one that was silent for longest; the authoritative one
// stays.
func (s *sessions) observe(id uint64, sequence, streamMS int64) standing {
	list := *s
	for i := range list {
		if known := &list[i]; known.id == id {
			known.seenMS = streamMS
			at := known.observe(sequence)
			at.slot, at.authoritative = list.settle(i), i == 0
			return at
		}
	}
	list = append(list[:min(len(list), maxSessions-1)], session{id: id, highest: sequence, seenMS: streamMS})
	*s = list
	i := len(list) - 1
	return standing{slot: list.settle(i), advances: true, authoritative: i == 0}
}

func (s *session) observe(sequence int64) standing {
	at := standing{fenced: sequence <= s.fence, wasAheadMS: s.aheadMS}
	switch ahead := sequence - s.highest; {
	case ahead > 0:
		// Shifts by 64 and more give zero, which is what is wanted.
		s.below = s.below<<uint64(ahead) | 1<<uint64(ahead-1)
		s.highest = sequence
		at.advances = true
	case ahead == 0, ahead < -recallDepth:
		at.recognised = true
	default:
		bit := uint64(1) << uint64(-ahead-1)
		at.recognised = s.below&bit != 0
		s.below |= bit
	}
	return at
}

// settle moves slot i forward to where its seenMS belongs, behind its equals,
// and returns where that is.
func (s sessions) settle(i int) int {
	for i > 1 && s[i-1].seenMS < s[i].seenMS {
		s[i-1], s[i] = s[i], s[i-1]
		i--
	}
	return i
}

// promote makes slot i the authoritative one.
func (s sessions) promote(i int) {
	promoted := s[i]
	copy(s[1:i+1], s[:i])
	s[0] = promoted
	// The former one may have been silent for longer than those behind it.
	for k := 1; k+1 < len(s) && s[k].seenMS < s[k+1].seenMS; k++ {
		s[k], s[k+1] = s[k+1], s[k]
	}
}

// shift moves every stream time.
func (s sessions) shift(byMS int64) {
	for i := range s {
		s[i].seenMS += byMS
	}
}

// seenAgain moves the times of the sessions that reported last at fromMS.
func (s sessions) seenAgain(fromMS, toMS int64) {
	for i := range s {
		if s[i].seenMS == fromMS {
			s[i].seenMS = toMS
		}
	}
	for i := 2; i < len(s); i++ {
		s.settle(i)
	}
}

// fenceAll gives up everything that has come so far, except the report that is
// the reason: current.
func (s sessions) fenceAll(current *wire.Report) {
	for i := range s {
		known := &s[i]
		known.fence = known.highest
		if known.id == current.SessionID {
			known.fence = current.Sequence - 1
		}
	}
}
