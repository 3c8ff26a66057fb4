package gpsfilter

import "math"

// measurement is a fix as the models see it.
type measurement struct {
	dt   float64 // seconds since the fix before
	e, n float64 // metres in the plane
	// accuracyM is what the device states, 0 for nothing. factor scales the
	// learned noise by it, leastVar is the variance of a fix far coarser than
	// usual, gridVar that of rounded coordinates.
	accuracyM, factor, leastVar, gridVar float64
	// hasVelocity: speed and course, or that the vehicle stands.
	hasVelocity, hasSpeed bool
	speed, ve, vn         float64
	// step is what the carried model moves by, with its variance per axis.
	stepE, stepN, stepVar float64
	// along and across are the reported velocity's last change, in its parts.
	alongE, alongN, acrossE, acrossN float64
	// repeated: exactly the position before. revisit: one of the last few, but
	// not the one before.
	repeated, revisit bool
}

// noise is a fix's variance per axis, for the models that go by positions and
// for the carried one.
type noise struct{ positions, carried float64 }

func (f *Filter) noise(s *working, m *measurement) noise {
	slow := m.dt / f.c.WhiteS
	return noise{
		atLeast(float64(s.whiteVar*m.factor)/(1+float64(slow*slow)), m.leastVar) + m.gridVar,
		atLeast(float64(atLeast(s.stepVar, f.c.StepFloorVar)*m.factor), m.leastVar) + m.gridVar,
	}
}

// measure reads the fix. A speed or an accuracy below zero, and an accuracy of
// zero, is what devices report for unknown.
func (f *Filter) measure(s *working, fix *Fix) measurement {
	c := &f.c
	m := measurement{dt: float64(fix.TimeMS-s.timeMS) / msPerS, factor: 1}
	m.e, m.n = s.anchor.toPlane(fix.LatDeg, fix.LonDeg)
	m.gridVar = f.grid(s, fix)
	if a := float64(fix.AccuracyM); fix.Has&FieldAccuracy != 0 && a > 0 {
		m.accuracyM = atMost(atLeast(a, f.cfg.MinAccuracyM), c.MaxAccuracyM)
		m.factor, m.leastVar = f.takeAccuracy(s, m.accuracyM)
	}
	if fix.Has&FieldSpeed != 0 && fix.SpeedMPS >= 0 {
		m.speed, m.hasSpeed = atMost(float64(fix.SpeedMPS), 2*f.cfg.MaxSpeedMPS), true
		switch {
		case m.speed < c.StandingMPS:
			// A speed that never comes with a course may be the wheels'.
			m.hasVelocity = s.courseless < uint16(c.CourselessFixes)
		case fix.Has&FieldHeading != 0:
			ue, un := sinCosDeg(float64(fix.HeadingDeg))
			m.ve, m.vn, m.hasVelocity = float64(m.speed*ue), float64(m.speed*un), true
			s.courseless = 0
		default:
			s.courseless = min(uint16(c.MaxCount), s.courseless+1)
		}
	}
	s.recognise(&m, fix)
	f.carry(s, &m)
	return m
}

// recognise notes whether the position is one of the last few.
func (s *common) recognise(m *measurement, fix *Fix) {
	h := hashPosition(fix)
	if h == s.recent[0] {
		m.repeated = true
		return
	}
	for _, r := range s.recent[1:] {
		m.revisit = m.revisit || h == r
	}
	copy(s.recent[1:], s.recent[:len(s.recent)-1])
	s.recent[0] = h
}

// takeAccuracy keeps the device's usual accuracy, near the best that it
// reports, and returns by how much the variance of this fix differs and, of a
// fix far coarser than usual, the least that it is.
func (f *Filter) takeAccuracy(s *working, a float64) (factor, least float64) {
	c := &f.c
	usual := float64(s.accuracyM)
	if usual == 0 {
		s.accuracyM = float32(a)
		return 1, 0
	}
	ratio := a / usual
	if ratio < c.FineRatio {
		s.rescale(float64(ratio*ratio), c)
		s.accuracyM = float32(a)
		return 1, 0
	}
	rate := c.UsualUpRate
	if a < usual {
		rate = c.UsualDownRate
	}
	s.accuracyM = float32(usual + float64(rate*(atMost(a, 2*usual)-usual)))
	if ratio > c.CoarseRatio && a > c.CoarseM {
		return float64(ratio * ratio), float64(c.CoarseVar * float64(a*a))
	}
	return atMost(ratio, c.CoarseRatio), 0
}

// rescale multiplies the learned variances: they were learned from coarse
// fixes.
func (s *common) rescale(k float64, c *constants) {
	s.whiteVar = atLeast(c.FloorVar, float64(k*s.whiteVar))
	s.stepVar = atLeast(c.StepFloorVar, float64(k*s.stepVar))
	s.devVar = atLeast(c.SmallVar, float64(k*s.devVar))
	s.biasVar = atLeast(c.SmallVar, float64(k*s.biasVar))
	s.innovVar = float32(k * float64(s.innovVar))
}

// grid returns the variance per axis of coordinates rounded to three or four
// decimals, once enough in a row have been.
func (f *Filter) grid(s *working, fix *Fix) float64 {
	c := &f.c
	step := c.FineGridDeg
	if !onGrid(fix, 1/c.FineGridDeg, c.GridTolerance) {
		s.gridCount = 0
		return 0
	}
	if onGrid(fix, 1/c.CoarseGridDeg, c.GridTolerance) {
		step = c.CoarseGridDeg
	}
	if s.gridCount < uint8(c.GridFixes) {
		s.gridCount++
		return 0
	}
	step *= metresPerDeg
	return float64(step*step) / uniform12
}

// onGrid reports whether both coordinates are whole numbers of steps, of which
// there are perDeg in a degree.
func onGrid(fix *Fix, perDeg, tolerance float64) bool {
	a, b := float64(fix.LatDeg*perDeg), float64(fix.LonDeg*perDeg)
	return math.Abs(a-math.Floor(a+1.0/2)) < tolerance && math.Abs(b-math.Floor(b+1.0/2)) < tolerance
}

// hashPosition is the 32-bit FNV-1a hash of the coordinate's words.
func hashPosition(fix *Fix) uint32 {
	h := uint32(fnvOffset)
	for _, w := range [2]uint64{math.Float64bits(fix.LatDeg), math.Float64bits(fix.LonDeg)} {
		h = (h ^ uint32(w)) * fnvPrime
		h = (h ^ uint32(w>>wordBits)) * fnvPrime
	}
	return h
}
