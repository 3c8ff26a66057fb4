package matcher

import (
	"context"
	"math"
	"slices"
	"time"
)

// futureMS is how far ahead of the wall clock a stamp of the log may be and
// still count as evidence that its partition is current.
const futureMS = 5000

// stalePartition is a partition whose tracker is behind.
type stalePartition struct {
	number   int32
	behindMS int64
	known    bool // false when nothing credible is known of its time
}

// staleCandidates are the partitions that may be stale, all others being
// current from fromMS to before untilMS, so that a search looks at none of them.
type staleCandidates struct {
	fromMS, untilMS int64
	numbers         []int32
}

// stale returns the partitions that are stale at a time, in order; nil if there
// are none. A partition that never had a record has nothing to be stale.
func (m *Matcher) stale(nowMS int64) []stalePartition {
	candidates := m.staleCache.Load()
	if candidates == nil || nowMS < candidates.fromMS || nowMS >= candidates.untilMS {
		fresh := m.findStale(nowMS)
		// Not if a time has jumped meanwhile.
		m.staleCache.CompareAndSwap(candidates, fresh)
		candidates = fresh
	}
	var out []stalePartition
	for _, number := range candidates.numbers {
		if s, ok := m.staleness(number, nowMS); ok {
			out = append(out, s)
		}
	}
	return out
}

// findStale looks at all partitions.
func (m *Matcher) findStale(nowMS int64) *staleCandidates {
	out := &staleCandidates{fromMS: nowMS, untilMS: math.MaxInt64}
	for i := range m.partitions {
		s, ok := m.staleness(int32(i), nowMS)
		switch {
		case ok:
			out.numbers = append(out.numbers, s.number)
		case s.known:
			out.untilMS = min(out.untilMS, nowMS-s.behindMS+m.cfg.StaleAfter.Milliseconds()+1)
		default: // it has no record yet; the first one tells
			out.numbers = append(out.numbers, s.number)
		}
	}
	return out
}

// staleness returns how far a partition is behind, and whether that is too far.
// What shows that it is current is its stream time or the append time of its
// newest record, whichever is later: while a jump of the log's stamps is not yet
// believed, the stream time stands still. A time from the future shows nothing.
func (m *Matcher) staleness(number int32, nowMS int64) (stalePartition, bool) {
	p := &m.partitions[number]
	out := stalePartition{number: number, behindMS: math.MaxInt64}
	for _, ms := range [...]int64{p.streamMS.Load(), p.appendMS.Load()} {
		if ms != 0 && ms <= nowMS+futureMS {
			out.behindMS, out.known = min(out.behindMS, nowMS-ms), true
		}
	}
	if !out.known {
		return stalePartition{number: number}, !p.empty.Load()
	}
	return out, out.behindMS > m.cfg.StaleAfter.Milliseconds()
}

// staleCheck is how often calls that watch look whether a partition has become
// stale or current again, which no record reports.
const staleCheck = time.Second

// watchStaleness wakes the calls that watch areas or counts when the set of
// stale partitions changes, which no record reports.
func (m *Matcher) watchStaleness(ctx context.Context) {
	tick := time.NewTicker(staleCheck)
	defer tick.Stop()
	var last []int32
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var now []int32
		for _, s := range m.stale(m.now().UnixMilli()) {
			now = append(now, s.number)
		}
		if !slices.Equal(now, last) {
			m.areas.WakeAll()
			m.counts.wakeAll()
		}
		last = now
	}
}
