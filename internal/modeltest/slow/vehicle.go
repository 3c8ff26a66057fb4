package slow

import (
	"cmp"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// vehicle is everything that was ever heard of one.
type vehicle struct {
	id                       string
	fixes                    []knownFix // of the present track, by time
	floorMS, newestMS        int64
	seenMS, toldMS           int64
	sessions                 []*session // newest first
	availability             starlingv1.Availability
	attributes               *wire.Attributes
	availabilitySeq, attrSeq int64
	counts                   wire.FixCounts
	// Since when its reports have been behind, and the first one's time.
	behindSinceMS, behindFirstMS int64
	last                         wire.Estimate
}

// knownFix is a fix that was accepted; finalBy is the filter that was in force
// when its window closed, nil while it is open.
type knownFix struct {
	wire.Fix
	finalBy *gpsfilter.Filter
}

func (f knownFix) isFinal() bool { return f.finalBy != nil }

func byTime(a, b wire.Fix) int { return cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS) }

// session is one life of a device's report queue; fence is the sequence up to
// which its reports belong to a device time that was given up.
type session struct {
	id             uint64
	seen           map[int64]bool
	highest, fence int64
}

// place is where a report stands among the vehicle's reports.
type place struct {
	session                        *session
	isNewest, recognised, advances bool
}

// take finds or opens the report's session.
func (v *vehicle) take(r *wire.Report) place {
	for i, s := range v.sessions {
		if s.id == r.SessionID {
			p := place{session: s, isNewest: i == 0, advances: r.Sequence > s.highest}
			p.recognised = s.seen[r.Sequence] || r.Sequence < s.highest-64
			s.seen[r.Sequence] = true
			s.highest = max(s.highest, r.Sequence)
			return p
		}
	}
	s := &session{id: r.SessionID, seen: map[int64]bool{r.Sequence: true}, highest: r.Sequence}
	v.sessions = append([]*session{s}, v.sessions...)
	v.sessions = v.sessions[:min(4, len(v.sessions))]
	v.availabilitySeq, v.attrSeq = 0, 0
	return place{session: s, isNewest: true, advances: true}
}

// startAnew gives up the track; the report of the sequence starts a new one.
func (v *vehicle) startAnew(s *session, sequence int64) {
	v.fixes, v.floorMS, v.newestMS, v.behindSinceMS = nil, 0, 0, 0
	for _, known := range v.sessions {
		known.fence = known.highest
	}
	s.fence = sequence - 1
}

// find answers the fix of a time among the open ones and the newest.
func (v *vehicle) find(ms int64) *wire.Fix {
	for i := range v.fixes {
		if f := &v.fixes[i]; f.DeviceTimeMS == ms && (!f.isFinal() || i == len(v.fixes)-1) {
			return &f.Fix
		}
	}
	return nil
}

// describe takes what a report of the newest session says besides fixes.
func (v *vehicle) describe(r *wire.Report) {
	if r.Availability != 0 && r.Sequence > v.availabilitySeq {
		v.availability, v.availabilitySeq = r.Availability, r.Sequence
	}
	if r.HasAttributes && r.Sequence > v.attrSeq {
		v.attributes, v.attrSeq = &r.Attributes, r.Sequence
	}
}
