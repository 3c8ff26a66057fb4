package follow

import (
	"github.com/starling-fleet/starling/matcher/liveindex"
)

// sameTimeMS is how far stream times may be ahead of the wall clock and still
// count as one time for all vehicles, the newest of them.
const sameTimeMS = 1000

// Moment is when a question is answered: for each vehicle the later of the wall
// clock and its partition's stream time, so that a clock that is behind the
// log's stamps makes no vehicle younger than it is.
type Moment struct {
	// MS is in milliseconds since the Unix epoch; the earliest if there is a skew.
	MS int64
	// Skew is how much later it is for a vehicle.
	Skew liveindex.Skew
	// DispatchMaxAgeMS is how old the newest fix of a dispatchable vehicle may be.
	DispatchMaxAgeMS int64
}

// Moment returns what time it is.
func (f *Follower) Moment() Moment {
	t := Moment{MS: f.now().UnixMilli(), DispatchMaxAgeMS: f.cfg.DispatchMaxAge.Milliseconds()}
	newest := f.newestStreamMS.Load()
	if newest <= t.MS {
		return t // nearly always
	}
	if newest <= t.MS+sameTimeMS {
		t.MS = newest
		return t
	}
	times, wall, latest := make([]int64, len(f.partitions)), t.MS, t.MS
	for i := range f.partitions {
		times[i] = max(wall, f.partitions[i].streamMS.Load())
		latest = max(latest, times[i])
	}
	t.Skew = liveindex.Skew{
		Of:     func(id string) int64 { return times[f.PartitionOf(id)] - wall },
		MostMS: latest - wall,
	}
	return t
}

// Of returns the time for a vehicle.
func (t *Moment) Of(id string) int64 {
	if t.Skew.Of == nil {
		return t.MS
	}
	return t.MS + t.Skew.Of(id)
}

// AgeMS returns the time since a vehicle's newest fix. It is false when that is
// not known: the vehicle has no position, or its fix is ahead of every clock.
func (t *Moment) AgeMS(v *liveindex.Vehicle) (ms int64, known bool) {
	ms = t.Of(v.ID) - v.FixTimeMS()
	return ms, v.DeviceTimeMS != 0 && ms >= 0
}

// Freshen withdraws Dispatchable from a vehicle whose newest fix has grown too
// old since the tracker published it.
func (t *Moment) Freshen(v *liveindex.Vehicle) {
	if v.Dispatchable {
		ms, known := t.AgeMS(v)
		v.Dispatchable = known && ms <= t.DispatchMaxAgeMS
	}
}

// FreshenAll does so with several.
func (t *Moment) FreshenAll(vs []liveindex.Vehicle) {
	for i := range vs {
		t.Freshen(&vs[i])
	}
}

// noteStream makes a record's times those of its partition. The stream time
// falls when the tracker believes that the log's stamps have jumped back.
func (f *Follower) noteStream(p *partition, streamMS, appendMS int64) {
	was, wasAppend := p.streamMS.Load(), p.appendMS.Load()
	p.streamMS.Store(streamMS)
	p.appendMS.Store(appendMS)
	switch {
	case streamMS > f.newestStreamMS.Load():
		f.newestStreamMS.Store(streamMS)
	case streamMS < was:
		newest := int64(0)
		for i := range f.partitions {
			newest = max(newest, f.partitions[i].streamMS.Load())
		}
		f.newestStreamMS.Store(newest)
	}
	if d := streamMS - was; d < 0 || d > jumpMS {
		p.departures.shift(d) // who has left is kept for all of the grace
	}
	// What has gone back, or may be from the future, shows less than what was
	// there before.
	if c := f.staleCache.Load(); c != nil && (streamMS < was || appendMS < wasAppend || max(streamMS, appendMS) > c.fromMS+futureMS) {
		f.staleCache.Store(nil)
	}
}
