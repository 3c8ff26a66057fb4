package gpsfilter

import "math"

const (
	// Time constants of the running means that tell whether a vehicle moves.
	fastMeanS, slowMeanS = 1.0, 4.0
	// maxHoldS is the longest time between fixes for which a standing vehicle
	// is held against a jump: in more it may have driven off.
	maxHoldS = 3
)

// sinceHeld returns how long ago the vehicle was last seen where it is held,
// or, while a jump waits for confirmation, the fix before.
func (s *State) sinceHeld(m *measurement) float64 {
	if s.altCount > 0 {
		return m.dt
	}
	return m.since
}

// holds says whether the vehicle has stood for long enough to be held.
func (s *State) holds(t *tuning) bool { return float64(s.standS) >= t.StandHoldS }

func (s *State) setMeans(fastE, fastN, slowE, slowN float64) {
	s.fastE, s.fastN, s.slowE, s.slowN = float32(fastE), float32(fastN), float32(slowE), float32(slowN)
}

// standstill decides whether the vehicle stands and then tells the filter so
// (a zero-velocity update). It goes by the reported speed, or by two running
// means of the position: their distance is the speed over the last seconds,
// and while the vehicle is held the slow one remembers where it stood.
func (f *Filter) standstill(s *State, m *measurement) bool {
	t := &f.tune
	if m.drives() {
		s.setMeans(m.e, m.n, m.e, m.n)
		s.standS = 0
		return false
	}
	holding := s.holds(t)
	slow := slowMeanS
	if holding {
		slow = min(float64(s.standS), t.StandRefS)
	}
	gf, gs := m.dt/(fastMeanS+m.dt), m.dt/(slow+m.dt)
	fe, fn, se, sn := float64(s.fastE), float64(s.fastN), float64(s.slowE), float64(s.slowN)
	fe += float64(gf * (m.e - fe))
	fn += float64(gf * (m.n - fn))
	de, dn := fe-se, fn-sn
	se += float64(gs * (m.e - se))
	sn += float64(gs * (m.n - sn))
	s.setMeans(fe, fn, se, sn)
	if m.stands() {
		s.standS += float32(m.dt)
		return true
	}
	if holding {
		if f.leaves(s, m, de, dn, se, sn) {
			return false
		}
	} else {
		ve, vn := (fe-se)/(slowMeanS-fastMeanS), (fn-sn)/(slowMeanS-fastMeanS)
		limit := t.StandSpeed + float64(t.StandSpeedPerNoise*math.Sqrt(s.whiteVar))
		if float64(ve*ve)+float64(vn*vn) > float64(limit*limit) || s.k.speed() > float64(limit*t.StandSpeedTrack) {
			s.standS = 0
			return false
		}
	}
	s.standS += float32(m.dt)
	if !s.holds(t) {
		return false
	}
	r := float64(t.StandSD * t.StandSD)
	s.k.updateVelocity(1, 0, 0, r)
	s.k.updateVelocity(0, 1, 0, r)
	return true
}

// leaves lets a held vehicle go when the fast mean is (de, dn) away from where
// it stood: the track goes as far as the fixes have gone since.
func (f *Filter) leaves(s *State, m *measurement, de, dn, se, sn float64) bool {
	t := &f.tune
	limit := t.StandExitM + float64(t.StandExitPerNoise*math.Sqrt(s.whiteVar))
	d := math.Sqrt(float64(de*de) + float64(dn*dn))
	if d <= limit {
		return false
	}
	s.standS = 0
	g := min(t.StandLeaveGain, 1/m.dt, 15/d)
	e, n := s.k.x[0]+m.e-se, s.k.x[1]+m.n-sn
	s.k.leave(e, n, float64(de*g), float64(dn*g), s.whiteVar+t.StandLeaveVar, t.StandLeaveVelVar)
	s.setMeans(m.e, m.n, (m.e+se)/2, (m.n+sn)/2)
	return true
}

// holdJump handles a step that a standing vehicle cannot have made. A bias has
// changed when the next fixes confirm the new place; the vehicle has left when
// they go on from there. It says whether the fix is dealt with.
func (f *Filter) holdJump(s *State, m *measurement, in *innovation) (Verdict, bool) {
	t := &f.tune
	limit := t.JumpM + float64(t.JumpAcc*float64(m.dt*m.dt)) + float64(t.JumpPerNoise*math.Sqrt(s.whiteVar))
	l2 := float64(limit * limit)
	if in.off2 <= l2 {
		s.altCount = 0
	}
	if in.off2 <= l2 || s.sinceHeld(m) > maxHoldS {
		return VerdictNone, false
	}
	de, dn := m.e-float64(s.altE), m.n-float64(s.altN)
	same := s.altCount > 0 && float64(de*de)+float64(dn*dn) <= l2
	speed := math.Sqrt(float64(de*de)+float64(dn*dn)) / max(m.dt, 0.5)
	switch {
	case same && s.altCount+1 >= float32(t.JumpCount):
		return f.shift(s, m, in)
	case s.altCount == 0 || same || m.hasSpeed || speed > 15:
		if !same {
			s.altCount = 0
		}
		if s.altCount == 0 {
			s.altE, s.altN = float32(m.e), float32(m.n)
		}
		s.altAgeS = 0
		s.altCount++
		if in.off2 < float64(t.GateM*t.GateM) {
			return VerdictStandstill, true
		}
		return VerdictOutlier, true
	}
	v := 1 / max(m.dt, 0.5)
	s.standS, s.altCount = 0, 0
	s.k.leave(s.k.x[0]+in.e, s.k.x[1]+in.n, float64(de*v), float64(dn*v), s.whiteVar+t.StandLeaveVar, 2*t.StandLeaveVelVar)
	s.setMeans(m.e, m.n, m.e-float64(de*v), m.n-float64(dn*v))
	return VerdictNone, false
}

// shift takes a confirmed jump of a held vehicle's fixes as a change of their
// bias; a second one within seconds is taken as driving.
func (f *Filter) shift(s *State, m *measurement, in *innovation) (Verdict, bool) {
	t := &f.tune
	s.altCount = 0
	if float64(s.standS) < t.StandHoldS+4 && !m.hasSpeed {
		s.standS = 0
		s.k.leave(s.k.x[0]+in.e, s.k.x[1]+in.n, 0, 0, s.whiteVar+float64(0.1*in.off2), 10*t.StandLeaveVelVar)
		s.setMeans(m.e, m.n, m.e, m.n)
		return VerdictNone, false
	}
	s.standS = float32(t.StandHoldS)
	s.k.x[4] += in.e
	s.k.x[5] += in.n
	s.setMeans(float64(s.fastE)+in.e, float64(s.fastN)+in.n, float64(s.slowE)+in.e, float64(s.slowN)+in.n)
	return VerdictStandstill, true
}
