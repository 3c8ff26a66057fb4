package follow

import (
	"context"
	"math"
	"slices"
	"time"
)

// futureMS is how far ahead of the wall clock a stamp of the log may be and
// still count as evidence that its partition is current.
const futureMS = 5000

// StalePartition is a partition whose tracker is behind.
type StalePartition struct {
	Number   int32
	BehindMS int64
	Known    bool // false when nothing credible is known of its time
}

// staleCandidates are the partitions that may be stale, all others being
// current from fromMS to before untilMS, so that a search looks at none of them.
type staleCandidates struct {
	fromMS, untilMS int64
	numbers         []int32
}

// Stale returns the partitions that are stale at a time, in order; nil if there
// are none. A partition that never had a record has nothing to be stale.
func (f *Follower) Stale(nowMS int64) []StalePartition {
	candidates := f.staleCache.Load()
	if candidates == nil || nowMS < candidates.fromMS || nowMS >= candidates.untilMS {
		fresh := f.findStale(nowMS)
		// Not if a time has jumped meanwhile.
		f.staleCache.CompareAndSwap(candidates, fresh)
		candidates = fresh
	}
	var out []StalePartition
	for _, number := range candidates.numbers {
		if s, ok := f.Staleness(number, nowMS); ok {
			out = append(out, s)
		}
	}
	return out
}

// findStale looks at all partitions.
func (f *Follower) findStale(nowMS int64) *staleCandidates {
	out := &staleCandidates{fromMS: nowMS, untilMS: math.MaxInt64}
	for i := range f.partitions {
		s, ok := f.Staleness(int32(i), nowMS)
		switch {
		case ok:
			out.numbers = append(out.numbers, s.Number)
		case s.Known:
			out.untilMS = min(out.untilMS, nowMS-s.BehindMS+f.cfg.StaleAfter.Milliseconds()+1)
		default: // it has no record yet; the first one shows it
			out.numbers = append(out.numbers, s.Number)
		}
	}
	return out
}

// Staleness returns how far a partition is behind, and whether that is too far.
// What shows that it is current is its stream time or the append time of its
// newest record, whichever is later: while a jump of the log's stamps is not yet
// believed, the stream time stands still. A time from the future shows nothing.
func (f *Follower) Staleness(number int32, nowMS int64) (StalePartition, bool) {
	p := &f.partitions[number]
	out := StalePartition{Number: number, BehindMS: math.MaxInt64}
	for _, ms := range [...]int64{p.streamMS.Load(), p.appendMS.Load()} {
		if ms != 0 && ms <= nowMS+futureMS {
			out.BehindMS, out.Known = min(out.BehindMS, nowMS-ms), true
		}
	}
	if !out.Known {
		return StalePartition{Number: number}, !p.empty.Load()
	}
	return out, out.BehindMS > f.cfg.StaleAfter.Milliseconds()
}

// StaleCheck is how often calls that watch look whether a partition has become
// stale or current again, which no record reports.
const StaleCheck = time.Second

// watchStaleness reports when the set of stale partitions changes, which no
// record does.
func (f *Follower) watchStaleness(ctx context.Context) {
	tick := time.NewTicker(StaleCheck)
	defer tick.Stop()
	var last []int32
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var now []int32
		for _, s := range f.Stale(f.now().UnixMilli()) {
			now = append(now, s.Number)
		}
		if !slices.Equal(now, last) {
			f.staleChanged()
		}
		last = now
	}
}
