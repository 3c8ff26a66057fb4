package matcher

import (
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// sameTimeMS is how far stream times may be ahead of the wall clock and still
// count as one time for all vehicles, the newest of them.
const sameTimeMS = 1000

// moment is when a question is answered: for each vehicle the later of the wall
// clock and its partition's stream time, so that a clock that is behind the
// log's stamps makes no vehicle younger than it is.
type moment struct {
	ms   int64          // in milliseconds since the Unix epoch; the earliest if there is a skew
	skew liveindex.Skew // how much later it is for a vehicle
	// dispatchMaxAgeMS is how old the newest fix of a dispatchable vehicle may be.
	dispatchMaxAgeMS int64
}

// moment returns what time it is.
func (m *Matcher) moment() moment {
	t := moment{ms: m.now().UnixMilli(), dispatchMaxAgeMS: m.cfg.DispatchMaxAge.Milliseconds()}
	newest := m.newestStreamMS.Load()
	if newest <= t.ms {
		return t // nearly always
	}
	if newest <= t.ms+sameTimeMS {
		t.ms = newest
		return t
	}
	times, wall, latest := make([]int64, len(m.partitions)), t.ms, t.ms
	for i := range m.partitions {
		times[i] = max(wall, m.partitions[i].streamMS.Load())
		latest = max(latest, times[i])
	}
	t.skew = liveindex.Skew{
		Of:     func(id string) int64 { return times[m.partitionOf(id)] - wall },
		MostMS: latest - wall,
	}
	return t
}

// of returns the time for a vehicle.
func (t *moment) of(id string) int64 {
	if t.skew.Of == nil {
		return t.ms
	}
	return t.ms + t.skew.Of(id)
}

// ageMS returns the time since a vehicle's newest fix. It is false when that is
// not known: the vehicle has no position, or its fix is ahead of every clock.
func (t *moment) ageMS(v *liveindex.Vehicle) (ms int64, known bool) {
	ms = t.of(v.ID) - v.FixTimeMS()
	return ms, v.DeviceTimeMS != 0 && ms >= 0
}

// freshen withdraws Dispatchable from a vehicle whose newest fix has grown too
// old since the tracker published it.
func (t *moment) freshen(v *liveindex.Vehicle) {
	if v.Dispatchable {
		ms, known := t.ageMS(v)
		v.Dispatchable = known && ms <= t.dispatchMaxAgeMS
	}
}

func (t *moment) freshenAll(vs []liveindex.Vehicle) {
	for i := range vs {
		t.freshen(&vs[i])
	}
}

// noteStream makes a record's times those of its partition. The stream time
// falls when the tracker believes that the log's stamps have jumped back.
func (m *Matcher) noteStream(p *partition, streamMS, appendMS int64) {
	was, wasAppend := p.streamMS.Load(), p.appendMS.Load()
	p.streamMS.Store(streamMS)
	p.appendMS.Store(appendMS)
	switch {
	case streamMS > m.newestStreamMS.Load():
		m.newestStreamMS.Store(streamMS)
	case streamMS < was:
		newest := int64(0)
		for i := range m.partitions {
			newest = max(newest, m.partitions[i].streamMS.Load())
		}
		m.newestStreamMS.Store(newest)
	}
	if d := streamMS - was; d < 0 || d > jumpMS {
		p.departures.shift(d) // who has left is kept for all of the grace
	}
	// What has gone back, or may be from the future, shows less than what was
	// there before.
	if c := m.staleCache.Load(); c != nil && (streamMS < was || appendMS < wasAppend || max(streamMS, appendMS) > c.fromMS+futureMS) {
		m.staleCache.Store(nil)
	}
}
