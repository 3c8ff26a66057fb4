package slow

import (
	"cmp"
	"math"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// vehicle is everything that was ever reported of one.
type vehicle struct {
	id                string
	fixes             []knownFix // of the present track, by time
	floorMS, newestMS int64
	memory            memory
	// seenMS is the stream time of the last report, publishedMS that of the last
	// publication, and changedMS that of the last one by a report or by a timer
	// that did something to the vehicle.
	seenMS, publishedMS, changedMS int64
	newReports                     int // that were no copies
	// jumpFirstMS is the first stamp of the jump that was pending when the
	// vehicle last reported, 0 for none.
	jumpFirstMS int64
	// sessions begins with the authoritative one; the others by when they
	// reported last.
	sessions []*session
	// authorityFixMS is the newest device time of the report by which the
	// first session became authoritative.
	authorityFixMS  int64
	conflictUntilMS int64 // 0 for no conflict
	availability    starlingv1.Availability
	attributes      *wire.Attributes
	counts          wire.FixCounts
	device          deviceClock
	suspect         suspect
	// Since when its reports have been behind, and the first one's time.
	behindSinceMS, behindFirstMS int64
	// The newest fix's estimate, the metres of the track up to it and of the
	// tracks before, and what the filter knew of the device then.
	last                  wire.Estimate
	metres, metresGivenUp float64
	diagnosis             wire.Diagnosis
}

// knownFix is a fix that was accepted; finalBy is the filter that was in force
// when its window closed, nil while it is open.
type knownFix struct {
	wire.Fix
	finalBy *gpsfilter.Filter
}

func (f knownFix) isFinal() bool { return f.finalBy != nil }

func byTime(a, b wire.Fix) int { return cmp.Compare(a.DeviceTimeMS, b.DeviceTimeMS) }

// find answers the open fix of a time.
func (v *vehicle) find(ms int64) *wire.Fix {
	for i := range v.fixes {
		if f := &v.fixes[i]; f.DeviceTimeMS == ms && !f.isFinal() {
			return &f.Fix
		}
	}
	return nil
}

// startAnew gives up the track; the report of the sequence starts a new one.
func (v *vehicle) startAnew(s *session, sequence int64) {
	v.metresGivenUp += v.metres
	v.fixes, v.floorMS, v.newestMS, v.last, v.metres, v.diagnosis = nil, 0, 0, wire.Estimate{}, 0, wire.Diagnosis{}
	v.doubtNothing()
	for _, known := range v.sessions {
		known.fence = known.highest
	}
	s.fence = sequence - 1
}

// doubtNothing forgets what was learned and suspected of the device's clock.
func (v *vehicle) doubtNothing() {
	v.device, v.suspect, v.behindSinceMS, v.behindFirstMS = deviceClock{}, suspect{}, 0, 0
}

// same compares two fixes of one device time; one that states that it is not
// mocked has no effect.
func same(a, b wire.Fix) bool { return plain(a) == plain(b) }

func plain(f wire.Fix) wire.Fix {
	if !f.Mocked {
		f.Has &^= wire.HasMocked
	}
	return f
}

// memory is what is known of fixes that are not open, oldest first.
type memory []remembered

type remembered struct {
	timeBits, check uint64
	// setAside: it has never counted, so another fix of its time may.
	setAside bool
}

func remember(f wire.Fix) remembered {
	words := []uint64{uint64(f.DeviceTimeMS), math.Float64bits(f.LatDeg), math.Float64bits(f.LonDeg), 0}
	for i, field := range []struct {
		has   wire.Has
		value float32
	}{{wire.HasAccuracy, f.AccuracyM}, {wire.HasSpeed, f.SpeedMPS}, {wire.HasHeading, f.HeadingDeg}, {wire.HasAltitude, f.AltitudeM}} {
		if f.Has&field.has != 0 {
			words[3] |= 1 << i
			words = append(words, uint64(math.Float32bits(field.value)))
		}
	}
	if f.Has&wire.HasMocked != 0 && f.Mocked {
		words[3] |= 16
	}
	h := uint64(0)
	for _, w := range words {
		h = (h ^ w) * 0x9E3779B97F4A7C15
		h ^= h >> 32
	}
	return remembered{timeBits: uint64(f.DeviceTimeMS) % (1 << 43), check: h >> 44}
}

// push remembers a fix and forgets the oldest beyond so many.
func (mem *memory) push(f wire.Fix, setAside bool, most int) {
	r := remember(f)
	r.setAside = setAside
	*mem = append(*mem, r)
	mem.keep(most)
}

func (mem *memory) keep(most int) { *mem = (*mem)[max(0, len(*mem)-most):] }

// knows reports whether another fix of the time has counted, or this one was seen.
func (mem memory) knows(f wire.Fix) (time, content bool) {
	this := remember(f)
	for _, r := range mem {
		if r.timeBits == this.timeBits {
			time = time || !r.setAside
			content = content || r.check == this.check
		}
	}
	return time, content
}
