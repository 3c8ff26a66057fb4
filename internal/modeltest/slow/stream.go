package slow

// stream is the partition's stream time and a jump of the stamps that is not
// believed yet.
type stream struct {
	ms int64
	// firstMS and lastMS are the first and the largest stamp beyond the jump,
	// 0 when none is pending.
	firstMS, lastMS int64
}

func (s *stream) isPending() bool { return s.firstMS != 0 }

// moveStream takes the next record's append time.
func (m *Model) moveStream(stampMS int64) {
	s := &m.stream
	distance := stampMS - s.ms
	switch {
	case s.ms == 0:
		s.ms = stampMS
	case -m.settings.ClockJumpMS <= distance && distance <= m.settings.ClockJumpMS:
		s.ms, s.firstMS, s.lastMS = max(s.ms, stampMS), 0, 0
	case !s.isPending(),
		(distance > 0) != (s.firstMS > s.ms), // on the other side
		stampMS < s.firstMS,
		stampMS-s.lastMS > m.settings.ClockJumpMS:
		s.firstMS, s.lastMS = stampMS, stampMS
	default:
		s.lastMS = max(s.lastMS, stampMS)
		if stampMS-s.firstMS >= m.settings.ClockSettleMS {
			m.believe(stampMS)
		}
	}
}

// believe makes the stamps that have stayed beyond a jump the stream time.
func (m *Model) believe(stampMS int64) {
	before := m.stream
	m.stream = stream{ms: stampMS}
	m.quietUntilMS = 0
	for _, v := range m.vehicles {
		switch {
		case stampMS < before.ms:
			v.shift(stampMS - before.ms)
		case v.jumpFirstMS == before.firstMS:
			v.seenMS, v.publishedMS, v.changedMS = stampMS, stampMS, stampMS
			for _, s := range v.sessions {
				if s.seenMS == before.ms {
					s.seenMS = stampMS
				}
			}
		}
	}
}

// shift moves all stream times of the vehicle.
func (v *vehicle) shift(ms int64) {
	v.seenMS += ms
	v.publishedMS += ms
	v.changedMS += ms
	for _, s := range v.sessions {
		s.seenMS += ms
	}
	if v.behindSinceMS != 0 {
		v.behindSinceMS += ms
	}
	if v.conflictUntilMS != 0 {
		v.conflictUntilMS += ms
	}
	if v.device.observations > 0 {
		v.device.blockMS += ms
		v.device.likeSinceMS += ms
	}
}

// lowMS is stream time and what has gone by since a jump of the stamps, by
// which a vehicle's position is held ahead or not.
func (m *Model) lowMS() int64 { return m.stream.ms + m.stream.lastMS - m.stream.firstMS }

// deviceNow is what a report's device times are held against.
type deviceNow struct {
	// ms is what a fix must be ahead of to be stamped ahead.
	ms int64
	// byDevice: the stamps are wrong, so ms is what the device states.
	byDevice bool
	// A fix between these two may have been taken just now, as far as the
	// stamps and what is known of the device's clock tell.
	earliestMS, latestMS int64
}

// deviceNow is the record's own stamp, or stream time if that is later. When
// the vehicle's newest fix is farther ahead than one may be, the stamps have
// gone back, and its device goes on.
func (m *Model) deviceNow(v *vehicle, stampMS int64) deviceNow {
	now := deviceNow{
		ms:         max(stampMS, m.lowMS()),
		earliestMS: m.lowMS() - m.settings.WindowMS,
		latestMS:   m.lowMS() + m.settings.AheadToleranceMS + max(0, v.device.learnedMS()),
	}
	if v.newestMS > now.ms+m.settings.MaxAheadMS {
		now.ms, now.byDevice = v.newestMS+max(0, m.stream.ms-v.seenMS), true
	}
	return now
}

func (n deviceNow) mayBe(deviceTimeMS int64) bool {
	return n.earliestMS <= deviceTimeMS && deviceTimeMS <= n.latestMS
}

// aheadMS is how far the vehicle's device is known to be ahead of it.
func (n deviceNow) aheadMS(v *vehicle) int64 {
	if n.byDevice {
		return 0
	}
	return v.device.learnedMS()
}
