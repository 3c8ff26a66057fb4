package step

import (
	"github.com/starling-fleet/starling/schemas/limits"
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
}

// standing says where a report stands among the vehicle's reports.
type standing struct {
	// recognised: the same (session, sequence) came before.
	recognised bool
	// newest: the report's session is the vehicle's newest.
	newest bool
	// opened: the report is the first of its session.
	opened bool
	// advances: the report has the highest sequence of its session so far.
	advances bool
	// fenced: the report belongs to a device time that was given up.
	fenced bool
}

// sessions is the vehicle's memory of (session, sequence), newest session first.
type sessions struct {
	list  [maxSessions]session
	count uint8
}

// observe finds out where a report stands and remembers it.
func (s *sessions) observe(id uint64, sequence int64) standing {
	for i := range s.list[:s.count] {
		if known := &s.list[i]; known.id == id {
			p := known.observe(sequence)
			p.newest = i == 0
			return p
		}
	}
	copy(s.list[1:], s.list[:maxSessions-1])
	s.list[0] = session{id: id, highest: sequence}
	s.count = min(s.count+1, maxSessions)
	return standing{newest: true, opened: true, advances: true}
}

func (s *session) observe(sequence int64) standing {
	p := standing{fenced: sequence <= s.fence}
	switch ahead := sequence - s.highest; {
	case ahead > 0:
		// Shifts by 64 and more give zero, which is what is wanted.
		s.below = s.below<<uint64(ahead) | 1<<uint64(ahead-1)
		s.highest = sequence
		p.advances = true
	case ahead == 0, ahead < -recallDepth:
		p.recognised = true
	default:
		bit := uint64(1) << uint64(-ahead-1)
		p.recognised = s.below&bit != 0
		s.below |= bit
	}
	return p
}

// fenceAll gives up everything that has come so far, except the report that is
// the reason: current.
func (s *sessions) fenceAll(current *wire.Report) {
	for i := range s.list[:s.count] {
		known := &s.list[i]
		known.fence = known.highest
		if known.id == current.SessionID {
			known.fence = current.Sequence - 1
		}
	}
}
