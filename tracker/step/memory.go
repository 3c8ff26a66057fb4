package step

import (
	"math"
	"slices"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// An entry of a vehicle's memory is a fix that is not open: the low 43 bits of
// its device time, which suffice to the year 2248, a bit that is set if it was
// set aside, and a check of its content in 20 bits.
const (
	checkBits = 20
	setAside  = 1 << checkBits
	timeShift = checkBits + 1
	timeMask  = 1<<(64-timeShift) - 1
)

// memory holds the last fixes that have left the vehicle's window or never came
// into it, so that a copy is recognised whatever session and sequence it comes
// with. It is a ring that grows until it holds Settings.RememberFixes.
type memory struct {
	entries []uint64
	// oldest is the index of the oldest entry once the ring is full.
	oldest int32
	// latest is not state: no entry has a later device time (of 43 bits).
	latest uint64
}

func entryOf(f *wire.Fix) uint64 {
	return uint64(f.DeviceTimeMS)&timeMask<<timeShift | contentCheck(f)
}

// contentCheck hashes a fix. It stands in checkpoints, so it never changes
// within a step version. An absent mark as mocked and a false one are the same.
func contentCheck(f *wire.Fix) uint64 {
	const multiplier = 0x9E3779B97F4A7C15
	h := uint64(0)
	mix := func(w uint64) {
		h = (h ^ w) * multiplier
		h ^= h >> 32
	}
	mix(uint64(f.DeviceTimeMS))
	mix(math.Float64bits(f.LatDeg))
	mix(math.Float64bits(f.LonDeg))
	mix(uint64(contentHas(f)))
	for i, value := range optional(f) {
		if f.Has&(1<<i) != 0 {
			mix(uint64(math.Float32bits(*value)))
		}
	}
	return h >> (64 - checkBits)
}

// contentHas is f.Has without a mark as mocked that is false.
func contentHas(f *wire.Fix) wire.Has {
	if f.Mocked {
		return f.Has
	}
	return f.Has &^ wire.HasMocked
}

// sameContent returns whether two fixes are equal for recognition.
func sameContent(a, b *wire.Fix) bool {
	if *a == *b {
		return true
	}
	x, y := *a, *b
	x.Has, y.Has = contentHas(a), contentHas(b)
	return x == y
}

// find returns whether a fix is remembered, and whether one of its device time is
// that was not set aside. One that was set aside takes no time from others: it
// may be a stranger's.
func (m *memory) find(f *wire.Fix) (timeKnown, contentKnown bool) {
	time := uint64(f.DeviceTimeMS) & timeMask
	if time > m.latest || len(m.entries) == 0 {
		return false, false
	}
	for _, e := range m.entries {
		if e>>timeShift != time {
			continue
		}
		if e&^setAside == entryOf(f) {
			return true, true
		}
		timeKnown = timeKnown || e&setAside == 0
	}
	return timeKnown, false
}

// push remembers an entry and forgets the oldest when there are most already.
func (m *memory) push(entry uint64, most int) (forgotten uint64, full bool) {
	time := entry >> timeShift
	if len(m.entries) < most {
		if len(m.entries) == cap(m.entries) {
			m.entries = slices.Grow(m.entries, min(most-len(m.entries), max(8, len(m.entries))))
		}
		m.entries = append(m.entries, entry)
		m.latest = max(m.latest, time)
		return 0, false
	}
	if most == 0 {
		return 0, false
	}
	forgotten = m.entries[m.oldest]
	m.entries[m.oldest] = entry
	m.oldest++
	if int(m.oldest) == len(m.entries) {
		m.oldest = 0
	}
	if m.latest = max(m.latest, time); forgotten>>timeShift == m.latest {
		m.findLatest()
	}
	return forgotten, true
}

func (m *memory) findLatest() {
	m.latest = 0
	for _, e := range m.entries {
		m.latest = max(m.latest, e>>timeShift)
	}
}

// trim makes the ring one of at most so many entries, and returns whether it
// forgot any.
func (m *memory) trim(most int) bool {
	n := len(m.entries)
	if n == 0 {
		return false
	}
	newest := make([]uint64, 0, min(most, n))
	for i := max(0, n-most); i < n; i++ {
		newest = append(newest, m.entries[(int(m.oldest)+i)%n])
	}
	*m = memory{entries: newest}
	m.findLatest()
	return len(newest) < n
}

// judge counts each fix, given by device time, and returns the new ones. Fixes
// after limit are stamped ahead.
//
// A copy of what was there already is a duplicate and other content of the same
// device time a conflict, as far as the window and the memory reach. What
// neither knows counts unless another session has taken over, it is late, or it
// is stamped ahead; then it is published as received, without effect, or is a
// duplicate when its report is recognised.
func (p *Partition) judge(v *vehicle, at standing, fixes []wire.Fix, limit int64, t *wire.Track) []wire.Fix {
	p.accepted = p.accepted[:0]
	untilMS := p.untilMS(v, &v.sessions[at.slot])
	for i := range fixes {
		fix := &fixes[i]
		known, same := p.recognise(v, fix)
		outsider := !at.authoritative && fix.DeviceTimeMS > untilMS
		late := fix.DeviceTimeMS < v.lowWatermarkMS || at.fenced
		switch {
		case same:
			t.Counts.Duplicate++
			p.outcome(t, starlingv1.OutcomeRule_OUTCOME_RULE_SAME_CONTENT, *fix)
		case known:
			t.Counts.Conflict++
			p.outcome(t, starlingv1.OutcomeRule_OUTCOME_RULE_OTHER_CONTENT, *fix)
			p.remember(v, fix, 0)
		case !outsider && !late && fix.DeviceTimeMS <= limit:
			t.Counts.Accepted++
			p.accepted = append(p.accepted, *fix)
		case at.recognised:
			t.Counts.Duplicate++
			p.outcome(t, starlingv1.OutcomeRule_OUTCOME_RULE_KNOWN_REPORT, *fix)
		case late && !outsider:
			t.Counts.Late++
			t.LateFixes = append(t.LateFixes, *fix)
			p.lateRule(t, fix.DeviceTimeMS < v.lowWatermarkMS)
			p.remember(v, fix, 0)
		default:
			t.Counts.SetAside++
			t.SetAsideFixes = append(t.SetAsideFixes, *fix)
			p.setAsideRule(t, outsider)
			p.remember(v, fix, setAside)
		}
	}
	return p.accepted
}

// recognise returns whether a fix of this device time is known, and whether one
// of this content is.
func (p *Partition) recognise(v *vehicle, fix *wire.Fix) (known, same bool) {
	if n := len(p.accepted); n > 0 && p.accepted[n-1].DeviceTimeMS == fix.DeviceTimeMS {
		known, same = true, sameContent(&p.accepted[n-1], fix)
	} else if fix.DeviceTimeMS <= v.newestMS {
		if open, found := v.window.find(fix.DeviceTimeMS); found {
			known, same = true, sameContent(open, fix)
		}
	}
	if same {
		return true, true
	}
	remembered, same := v.memory.find(fix)
	return known || remembered, same
}

// nameReport has the track say which report it answers.
func (p *Partition) nameReport(t *wire.Track) {
	if p.version.Outcomes {
		t.SessionID, t.Sequence = p.location.Report.SessionID, p.location.Report.Sequence
	}
}

// outcome has the track say what became of a fix that is published nowhere else.
func (p *Partition) outcome(t *wire.Track, rule starlingv1.OutcomeRule, fix wire.Fix) {
	if p.version.Outcomes {
		t.Outcomes = append(t.Outcomes, wire.FixOutcome{Rule: rule, Fix: fix})
	}
}

func (p *Partition) lateRule(t *wire.Track, behindWindow bool) {
	rule := starlingv1.OutcomeRule_OUTCOME_RULE_DEVICE_TIME_GIVEN_UP
	if behindWindow {
		rule = starlingv1.OutcomeRule_OUTCOME_RULE_BEHIND_WINDOW
	}
	if p.version.Outcomes {
		t.LateRules = append(t.LateRules, rule)
	}
}

func (p *Partition) setAsideRule(t *wire.Track, shutOut bool) {
	rule := starlingv1.OutcomeRule_OUTCOME_RULE_STAMPED_AHEAD
	if shutOut {
		rule = starlingv1.OutcomeRule_OUTCOME_RULE_SESSION_SHUT_OUT
	}
	if p.version.Outcomes {
		t.SetAsideRules = append(t.SetAsideRules, rule)
	}
}
