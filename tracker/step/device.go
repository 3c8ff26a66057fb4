package step

import "github.com/starling-fleet/starling/schemas/wire"

// deviceClock is how far the clock of the authoritative session's device is
// ahead of stream time, as its reports show. A report's newest fix is at least as
// old as the report's delay, so the largest difference of the last one to two
// blocks of Settings.ClockMemoryMS is the closest: that report was without delay.
type deviceClock struct {
	// blockMS is the stream time at which the present block began.
	blockMS int64
	// curMS and prevMS are the largest differences of the present and of the
	// previous block.
	curMS, prevMS int64
	hasPrev       bool
	// settled and prevSettled are true if a block's observations have agreed for
	// a while. Until then, agreedMS is the difference with which they have since
	// the stream time agreedSinceMS.
	settled, prevSettled    bool
	agreedMS, agreedSinceMS int64
	// count is the number of observations since it was cleared, at most
	// enoughObservations.
	count uint8
}

// enoughObservations make a steady offset.
const enoughObservations = 3

// aheadMS is the learned difference, 0 when nothing is learned. No fix is taken
// after its report has come, so one report shows that a clock is ahead. That
// it is behind takes reports that agree for a while: those of a backlog are as
// old, but it is sent faster than it was recorded.
func (c *deviceClock) aheadMS() int64 {
	ahead := c.curMS
	if c.count > 0 && c.hasPrev {
		ahead = max(ahead, c.prevMS)
	}
	if ahead < 0 && !c.settled && !c.prevSettled {
		return 0
	}
	return ahead
}

func (c *deviceClock) observe(streamMS, offsetMS, memoryMS, toleranceMS int64) {
	switch age := streamMS - c.blockMS; {
	case c.count == 0, age >= 2*memoryMS:
		*c = deviceClock{blockMS: streamMS, curMS: offsetMS, agreedMS: offsetMS, agreedSinceMS: streamMS, count: c.count}
	case age >= memoryMS:
		c.prevMS, c.prevSettled, c.hasPrev = c.curMS, c.settled, true
		c.blockMS, c.curMS, c.settled = streamMS, offsetMS, false
		c.agreedMS, c.agreedSinceMS = offsetMS, streamMS
	default:
		c.curMS = max(c.curMS, offsetMS)
		if off := offsetMS - c.agreedMS; max(off, -off) > toleranceMS {
			c.agreedMS, c.agreedSinceMS = offsetMS, streamMS
		} else if streamMS-c.agreedSinceMS >= 2*toleranceMS {
			c.settled = true
		}
	}
	c.count = min(c.count+1, enoughObservations)
}

// suspect counts the reports in a row of the authoritative session that were
// stamped ahead by about as much, each later than the one before. confirmations
// of them show that the device's clock has jumped, and not that one stamp was
// wrong.
type suspect struct {
	count     int8
	lastFixMS int64
	aheadMS   int64
}

const confirmations = 3

// present is what the time is for one report.
type present struct {
	// nowMS is the latest time that it can be for the device: a fix that is
	// much after it is stamped ahead.
	nowMS int64
	// lowMS is the earliest time that it can be by the stamps: a vehicle whose
	// newest fix is much after it is held ahead.
	lowMS int64
	// learnedMS is how far the vehicle's device is known to be ahead.
	learnedMS int64
	// heldAhead is true if the newest fix is further ahead than any fix that is
	// accepted. Only wrong stamps do that: the log's clock was set back, and
	// the devices were right. They go on at their own pace, and nothing that
	// was learned of their clocks counts.
	heldAhead bool
}

// presentFor is the present for a report of v, before the report changes v.
func (p *Partition) presentFor(v *vehicle) present {
	// While stream time stands still before a pending jump, the stamps' own
	// progress counts.
	low := p.streamMS + p.jump.lastMS - p.jump.sinceMS
	now := present{nowMS: max(p.stampMS, low), lowMS: low, learnedMS: v.clock.aheadMS()}
	if v.newestMS > now.nowMS+p.settings.MaxAheadMS {
		now.heldAhead = true
		now.nowMS = v.newestMS + max(0, p.streamMS-v.seenMS)
	}
	return now
}

// expectedMS is the latest device time that is expected of v's device: its clock
// may be ahead by what was learned, or by the tolerance of its delay.
func (p *Partition) expectedMS(v *vehicle, now present) int64 {
	expected := now.nowMS + p.settings.AheadToleranceMS
	if !now.heldAhead {
		expected += max(0, v.clock.aheadMS())
	}
	return expected
}

// learn observes the device's clock by the newest fix of a report, which has
// advanced the vehicle. A fix that is far behind is old and proves nothing.
func (p *Partition) learn(v *vehicle, newestMS int64) {
	offset := newestMS - p.streamMS
	if p.jump.pending() || max(offset, -offset) > p.settings.MaxAheadMS {
		return
	}
	v.clock.observe(p.streamMS, offset, p.settings.ClockMemoryMS, p.settings.AheadToleranceMS)
}

// limitMS is the latest device time of a report's fixes that is not stamped
// ahead. It counts the report among those that confirm a jump of its device's
// clock; fixes are by device time.
func (p *Partition) limitMS(v *vehicle, at standing, fixes []wire.Fix, now present) int64 {
	latest := now.nowMS + p.settings.MaxAheadMS
	if v.newestMS == 0 {
		return latest
	}
	limit := min(latest, p.expectedMS(v, now))
	if !at.authoritative || at.recognised || !p.confirms(v, at, fixes, limit, now) {
		return limit
	}
	v.suspect, v.clock = suspect{}, deviceClock{}
	return latest
}

// confirms returns whether the report is the last that it takes to believe a
// device whose fixes are after limit, but none further ahead than MaxAheadMS.
func (p *Partition) confirms(v *vehicle, at standing, fixes []wire.Fix, limit int64, now present) bool {
	newestMS := int64(0)
	for i := range fixes {
		switch ms := fixes[i].DeviceTimeMS; {
		case ms >= v.lowWatermarkMS && ms <= limit: // in line
			v.suspect = suspect{}
			return false
		case ms > limit && ms <= now.nowMS+p.settings.MaxAheadMS:
			newestMS = ms
		}
	}
	if newestMS == 0 || !at.advances {
		return false
	}
	s, aheadMS := &v.suspect, newestMS-now.nowMS
	if newestMS <= s.lastFixMS || !p.inLine(aheadMS, s.aheadMS) {
		s.count = 0
	}
	*s = suspect{s.count + 1, newestMS, aheadMS}
	return s.count == confirmations
}
