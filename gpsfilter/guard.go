package gpsfilter

import "math"

// judge reports whether a fix is used and, if it is, uses it. before is the mixture
// of the models at the fix before. It returns the verdict and the normalised
// distance.
func (f *Filter) judge(s *working, m *measurement, before *mixture) (Verdict, float64) {
	c := &f.c
	if f.isStale(s, m, before) {
		f.skip(s, m)
		return VerdictStale, 0
	}
	r := f.noise(s, m)
	var in innovations
	s.expect(m, &r, &in)
	d := math.Sqrt(in.d2)
	if f.isAlone(s, m) {
		f.skip(s, m)
		return VerdictCorrected, d
	}
	if in.d2 > c.Gate && in.off2 > float64(c.GateM*c.GateM) {
		if !m.revisit && f.alternative(s, m) {
			return VerdictWarmingUp, d
		}
		f.skip(s, m)
		return VerdictOutlier, d
	}
	if !m.repeated && !m.revisit {
		s.altCount = 0
	}
	s.support = min(uint8(c.MaxSupport), s.support+1)
	f.learnCarried(s, m)
	f.learnWhite(s, m, &in)
	f.update(s, &in)
	f.repair(s)
	f.learnTrust(s, m)
	s.seen = min(uint16(c.MaxCount), s.seen+1)
	switch {
	case in.d2 > c.CorrectedD2:
		return VerdictCorrected, d
	case s.weight[stand] > 1.0/2 || m.hasSpeed && m.speed < c.StandingMPS && s.weight[carried] > 1.0/2:
		return VerdictStandstill, d
	}
	return VerdictAccepted, d
}

// isAlone reports whether the fix is from a far coarser source than those before
// it, such as a cell among fixes of GPS. Until enough have come in a row, the
// vehicle is better known without.
func (f *Filter) isAlone(s *working, m *measurement) bool {
	if m.leastVar == 0 {
		s.coarseCount = 0
		return false
	}
	s.coarseCount = min(uint8(f.c.GuardCount), s.coarseCount+1)
	return float64(s.coarseCount) < f.c.GuardCount
}

// skip is for a fix that is not used.
func (f *Filter) skip(s *working, m *measurement) {
	s.slowCount = 0
	f.carrySnap(s, m)
}

// isStale reports whether the fix repeats a position although the vehicle drives.
// That is believed for StaleS at most, and not of rounded coordinates.
func (f *Filter) isStale(s *working, m *measurement, before *mixture) bool {
	if !m.repeated {
		s.staleS = 0
		return false
	}
	s.staleS += float32(m.dt)
	if m.gridVar > 0 || float64(s.staleS) > f.c.StaleS {
		return false
	}
	if m.hasSpeed {
		return m.speed > f.c.MovingMPS
	}
	if m.dt > f.c.OwnStaleS {
		return false
	}
	v2 := dot(before.ve, before.vn, before.ve, before.vn)
	return v2 > float64(f.c.OwnMovingMPS*f.c.OwnMovingMPS) && v2 > before.vv
}

// alternative counts the fixes in a row that disagree with the track and are
// plausible together, and moves the track to them when there are enough: one
// when next to nothing supports the track, more when more does. It reports
// whether it moved.
func (f *Filter) alternative(s *working, m *measurement) bool {
	c := &f.c
	if s.chainCount == 1 {
		s.altCount = 0
	}
	s.altCount++
	need := uint8(c.GuardCount)
	switch {
	case float64(s.support) < c.NewSupport:
		need = 1
	case float64(s.support) < c.YoungSupport:
		need = 2
	}
	if s.altCount < need {
		return false
	}
	f.restart(s, m)
	s.support = need
	return true
}

// chain counts the distinct positions that have come in a row, each within
// reach of the one before.
func (f *Filter) chain(s *working, fix *Fix, m *measurement) {
	s.chainAgeS += float32(m.dt)
	if m.repeated {
		s.chainAgeS = 0
	}
	if m.repeated || m.revisit {
		return
	}
	reach := float64(f.cfg.MaxSpeedMPS * float64(s.chainAgeS))
	if isBeyond(fix, s.chainLatDeg, s.chainLonDeg, float64(reach*reach)) {
		s.chainCount = 0
	}
	s.chainCount = min(uint8(f.c.GuardCount), s.chainCount+1)
	s.chainLatDeg, s.chainLonDeg, s.chainAgeS = fix.LatDeg, fix.LonDeg, 0
}

// isBeyond returns whether a place is further from the fix than a distance, given
// squared. It needs the cosine of the latitude only for places that would not be
// near even on the equator: a factor of at most 1 leaves rounded products and sums
// as large as they are, or makes them smaller.
func isBeyond(fix *Fix, latDeg, lonDeg, distance2 float64) bool {
	here := plane{latDeg: fix.LatDeg, lonDeg: fix.LonDeg, cosLat: 1}
	e, n := here.toPlane(latDeg, lonDeg)
	if dot(e, n, e, n) <= distance2 {
		return false
	}
	here = newPlane(fix.LatDeg, fix.LonDeg)
	e, n = here.toPlane(latDeg, lonDeg)
	return dot(e, n, e, n) > distance2
}

// guard is the safety net. Once three distinct and mutually plausible positions
// have come in a row, the live position is near the last, whatever was reported
// before and whatever else the fixes state; and the stated 95 % radius is never
// below the distance to a fix that was used.
func (f *Filter) guard(s *working, m *measurement, v Verdict) {
	s.leastVar = 0
	if v == VerdictStale || v == VerdictOutlier && m.revisit {
		return
	}
	if s.chainCount >= uint8(f.c.GuardCount) && f.isFar(m.e, m.n) {
		s.liveE, s.liveN = m.e, m.n // out there the plane's metres are not true
	}
	e, n := s.liveE-m.e, s.liveN-m.n
	d := math.Sqrt(dot(e, n, e, n))
	most := float64(f.c.GuardShare * atLeast(f.c.GuardM, 2*m.accuracyM))
	if float64(s.chainCount) >= f.c.GuardCount && d > most {
		k := most / d
		s.liveE, s.liveN, d = m.e+float64(e*k), m.n+float64(n*k), most
	}
	if v != VerdictOutlier && (m.leastVar == 0 || s.coarseCount >= uint8(f.c.GuardCount)) {
		sd := d / f.c.GuardSD
		s.leastVar = float32(sd * sd)
	}
}

// isFar reports whether a place is too far from the anchor for its plane.
func (f *Filter) isFar(e, n float64) bool { return math.Abs(e)+math.Abs(n) > f.c.ReanchorM }
