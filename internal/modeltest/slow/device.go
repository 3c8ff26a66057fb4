package slow

import "github.com/starling-fleet/starling/schemas/wire"

// deviceClock is what was learned of the clock of the authoritative session's
// device: the quickest reports' offsets from stream time, in two blocks.
type deviceClock struct {
	observations int
	blockMS      int64
	current      int64
	previous     *int64
	// long: observations of a block were like one that was a while before them
	long, previousLong bool
	like, likeSinceMS  int64
}

// learnedMS is how far the device's clock is ahead, 0 when nothing is known.
// That it is behind is known only when one of the blocks is long enough.
func (c *deviceClock) learnedMS() int64 {
	switch {
	case c.observations == 0:
		return 0
	case c.current > 0 || c.previous != nil && *c.previous > 0 || c.long || c.previousLong:
		if c.previous == nil {
			return c.current
		}
		return max(c.current, *c.previous)
	}
	return 0
}

// observe takes the newest device time of a report that advanced the vehicle.
func (m *Model) observe(c *deviceClock, newestMS int64) {
	offset, now, memory := newestMS-m.stream.ms, m.stream.ms, m.settings.ClockMemoryMS
	if offset > m.settings.MaxAheadMS || offset < -m.settings.MaxAheadMS || m.stream.isPending() {
		return
	}
	tolerance := m.settings.AheadToleranceMS
	isFirst := c.observations == 0 || now-c.blockMS >= memory
	switch {
	case c.observations == 0:
		c.current, c.blockMS = offset, now
	case now-c.blockMS >= 2*memory:
		c.previous, c.current, c.blockMS = nil, offset, now
		c.long, c.previousLong = false, false
	case now-c.blockMS >= memory:
		last := c.current
		c.previous, c.current, c.blockMS = &last, offset, now
		c.long, c.previousLong = false, c.long
	default:
		c.current = max(c.current, offset)
	}
	switch {
	case isFirst, offset > c.like+tolerance, offset < c.like-tolerance:
		c.like, c.likeSinceMS = offset, now
	case now-c.likeSinceMS >= tolerance*2:
		c.long = true
	}
	c.observations++
}

// suspect counts reports in a row with nothing but fixes stamped ahead, by
// about as much; the last one's newest fix, and how far that was ahead.
type suspect struct{ count, lastMS, aheadMS int64 }

// limit is the newest device time that is not stamped ahead.
func (m *Model) limit(v *vehicle, p *place, fixes []wire.Fix, now deviceNow) int64 {
	farthest := now.ms + m.settings.MaxAheadMS
	limitMS := min(farthest, now.ms+max(0, now.aheadMS(v))+m.settings.AheadToleranceMS)
	if v.newestMS == 0 {
		return farthest
	}
	if m.confirms(v, p, fixes, limitMS, now) {
		v.suspect, v.device = suspect{}, deviceClock{}
		return farthest
	}
	return limitMS
}

func (m *Model) confirms(v *vehicle, p *place, fixes []wire.Fix, limitMS int64, now deviceNow) bool {
	if !p.authoritative || p.recognised {
		return false
	}
	newestMS := int64(0)
	for _, f := range fixes {
		switch ms := f.DeviceTimeMS; {
		case v.floorMS <= ms && ms <= limitMS:
			v.suspect = suspect{}
			return false
		case limitMS < ms && ms <= now.ms+m.settings.MaxAheadMS:
			newestMS = max(newestMS, ms)
		}
	}
	if newestMS == 0 || !p.advances {
		return false
	}
	aheadMS := newestMS - now.ms
	off := max(aheadMS-v.suspect.aheadMS, v.suspect.aheadMS-aheadMS)
	if newestMS <= v.suspect.lastMS || off > m.settings.AheadToleranceMS {
		v.suspect.count = 0
	}
	v.suspect = suspect{v.suspect.count + 1, newestMS, aheadMS}
	return v.suspect.count == 3
}

// jumped reports whether the report shows that the device's clock has jumped, so
// that the vehicle has to be followed at another device time, which it answers.
func (m *Model) jumped(v *vehicle, p *place, fixes []wire.Fix, limitMS int64, now deviceNow) (newestMS int64, hasJumped bool) {
	if !p.advances || p.recognised || v.newestMS == 0 {
		return 0, false
	}
	for _, f := range fixes {
		time, content := v.memory.knows(f)
		if f.DeviceTimeMS <= limitMS && v.find(f.DeviceTimeMS) == nil && !time && !content {
			newestMS = f.DeviceTimeMS
		}
	}
	if newestMS == 0 {
		return 0, false
	}
	if !p.authoritative {
		isSetBack := m.isSilent(v.sessions[0]) && m.isSetBack(v, newestMS)
		if isSetBack {
			m.takeOver(v, p, newestMS, now)
		}
		return newestMS, isSetBack
	}
	return newestMS, m.givesWay(v, p, newestMS, now)
}

// givesWay reports whether the vehicle's newest fix was wrong, by the newest new
// one of a report of the authoritative session.
func (m *Model) givesWay(v *vehicle, p *place, newestMS int64, now deviceNow) bool {
	tolerance := m.settings.AheadToleranceMS
	if v.newestMS > m.lowMS()+tolerance && newestMS < v.newestMS && now.mayBe(newestMS) {
		off := p.wasAheadMS - v.device.learnedMS()
		steadilyAhead := v.device.observations >= 3 && -tolerance <= off && off <= tolerance && newestMS >= v.floorMS
		if !steadilyAhead {
			return true
		}
	}
	return m.isSetBack(v, newestMS)
}

// isSetBack weighs a report whose newest fix is given: one behind the window,
// again and again, at about the pace of stream time, is of a clock set back.
func (m *Model) isSetBack(v *vehicle, newestMS int64) bool {
	if m.stream.isPending() {
		return false
	}
	if newestMS >= v.floorMS {
		v.behindSinceMS, v.behindFirstMS = 0, 0
		return false
	}
	patience := m.settings.RebaseAfterMS
	elapsed, advance := m.stream.ms-v.behindSinceMS, newestMS-v.behindFirstMS
	samePace := max(advance-elapsed, elapsed-advance) <= (elapsed+patience)/2
	if v.behindSinceMS == 0 || !samePace {
		v.behindSinceMS, v.behindFirstMS = m.stream.ms, newestMS
		return false
	}
	return elapsed >= patience && v.floorMS-newestMS > patience
}
