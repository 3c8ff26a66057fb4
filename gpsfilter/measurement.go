package gpsfilter

import "math"

const (
	// standingMPS is the reported speed below which a vehicle stands.
	standingMPS = 0.3
	// velocityMemoryS is how long a device counts as one that reports its
	// velocity.
	velocityMemoryS = 30
	// minCourses is the share of driving fixes with a course below which a
	// device counts as one that reports speed alone, startCourses the share
	// that is assumed of a new one.
	minCourses, startCourses = 0.3, 0.5
)

// measurement is a fix as the models see it.
type measurement struct {
	dt    float64 // seconds since the fix before
	since float64 // seconds since a position was used
	e, n  float64 // metres in the plane
	// accuracyM is what the device reports, 0 for nothing.
	accuracyM float64
	// noiseFactor scales the learned variance by the reported accuracy.
	noiseFactor float64
	// hasVelocity: speed and course were reported, or that the vehicle stands.
	hasVelocity, hasSpeed bool
	speed, ue, un         float64 // course as a unit vector
	// accAlong and accAcross are the acceleration between the reported
	// velocities, along the course and to its left.
	accAlong, accAcross float64
	repeated            bool // exactly the velocity reported before
}

// stands says whether the device reports that the vehicle stands.
func (m *measurement) stands() bool { return m.hasSpeed && m.speed < standingMPS }

// drives says whether the device reports that the vehicle moves.
func (m *measurement) drives() bool { return m.hasSpeed && m.speed >= standingMPS }

func (f *Filter) measure(s *State, fix *Fix) measurement {
	m := measurement{dt: float64(fix.TimeMS-s.timeMS) / 1000, noiseFactor: 1}
	m.since = m.dt + float64(s.unseenS)
	m.e, m.n = s.anchor.toPlane(fix.LatDeg, fix.LonDeg)
	if fix.Has&FieldAccuracy != 0 {
		m.accuracyM = float64(fix.AccuracyM)
		m.noiseFactor = f.takeAccuracy(s, m.accuracyM)
	}
	if s.reportedAgeS >= 0 {
		s.reportedAgeS += float32(m.dt)
	}
	if fix.Has&FieldSpeed == 0 {
		return m
	}
	m.speed, m.hasSpeed = min(max(0, float64(fix.SpeedMPS)), 2*f.cfg.MaxSpeedMPS), true
	hasCourse := fix.Has&FieldHeading != 0
	if m.drives() {
		s.courses = float32(0.9 * s.courses)
		if hasCourse {
			s.courses += 0.1
		}
	}
	switch {
	case hasCourse:
		m.ue, m.un = sinCosDeg(float64(fix.HeadingDeg))
		m.hasVelocity = true
	case m.stands():
		m.un, m.hasVelocity = 1, true
	default:
		return m
	}
	ve, vn := float64(m.speed*m.ue), float64(m.speed*m.un)
	if age := float64(s.reportedAgeS); age > 0 && age < 3 {
		age = max(age, 0.2)
		de, dn := ve-float64(s.reportedE), vn-float64(s.reportedN)
		along, across := float64(de*m.ue)+float64(dn*m.un), float64(dn*m.ue)-float64(de*m.un)
		m.accAlong, m.accAcross = along/age, across/age
		s.speedLag.moves(float64(along*m.ue), float64(along*m.un))
		s.courseLag.moves(-float64(across*m.un), float64(across*m.ue))
	}
	m.repeated = s.reportedAgeS >= 0 && float32(ve) == s.reportedE && float32(vn) == s.reportedN
	s.reportedE, s.reportedN, s.reportedAgeS = float32(ve), float32(vn), 0
	return m
}

// takeAccuracy keeps the device's usual accuracy and returns by how much the
// variance of a fix of this accuracy differs from the usual. The learned noise
// thus gives the accuracy its scale, whatever the device means by it.
func (f *Filter) takeAccuracy(s *State, accuracyM float64) float64 {
	a := min(1e5, max(f.cfg.MinAccuracyM, accuracyM))
	usual := float64(s.accuracyM)
	if usual == 0 {
		s.accuracyM = float32(a)
		return 1
	}
	ratio := a / usual
	s.accuracyM = float32(usual + float64(f.tune.AccuracyRate*(min(a, 2*usual)-usual)))
	return min(100, max(0.25, float64(ratio*ratio)))
}

// hasRecentVelocity says whether the device reports its velocity.
func (s *State) hasRecentVelocity() bool {
	return s.reportedAgeS >= 0 && s.reportedAgeS < velocityMemoryS && s.courses >= minCourses
}

// processNoise returns what m.dt seconds add to the state's uncertainty: white
// acceleration, along and across the course (Bar-Shalom, Li and Kirubarajan,
// "Estimation with Applications to Tracking and Navigation", 2001, section
// 6.2), and the bias's change.
func (f *Filter) processNoise(s *State, m *measurement) noise {
	t := &f.tune
	qa, qc := t.QAlong, t.QCross
	switch {
	case m.hasVelocity:
		qa, qc = t.QAlongVelocity, t.QCrossVelocity
	case m.hasSpeed:
		qa, qc = t.QAlongWheel, t.QCrossWheel
	}
	if m.since > 1 {
		// A vehicle that is not seen keeps its acceleration for a while, so
		// its uncertainty grows faster than that of white acceleration.
		g := 1 + float64(t.QGap*(m.since-1))
		qa, qc = float64(qa*g), float64(qc*g)
	}
	bias, perNoise := t.BiasM, t.BiasPerNoise
	if s.hasRecentVelocity() {
		bias, perNoise = t.BiasVelocityM, t.BiasPerNoiseVelocity
	}
	q := noise{decay: t.BiasTauS / (t.BiasTauS + m.dt)}
	q.biasVarM2 = float64((float64(bias*bias) + float64(perNoise*s.whiteVar)) * (1 - float64(q.decay*q.decay)))
	speed := s.k.speed()
	if speed < 1 {
		q.qee, q.qnn = (qa+qc)/2, (qa+qc)/2
		if s.standS > 0 && m.dt < 3 {
			q.qee, q.qnn = t.QStanding, t.QStanding
		}
		return q
	}
	ue, un := s.k.x[2]/speed, s.k.x[3]/speed
	ee, nn := float64(ue*ue), float64(un*un)
	q.qee = float64(qa*ee) + float64(qc*nn)
	q.qnn = float64(qa*nn) + float64(qc*ee)
	q.qen = float64((qa - qc) * float64(ue*un))
	return q
}

// hashPosition is the 32-bit FNV-1a hash of the coordinate's words.
func hashPosition(fix *Fix) uint32 {
	h := uint32(2166136261)
	for _, w := range [2]uint64{math.Float64bits(fix.LatDeg), math.Float64bits(fix.LonDeg)} {
		h = (h ^ uint32(w)) * 16777619
		h = (h ^ uint32(w>>32)) * 16777619
	}
	return h
}

// isStale says whether the fix repeats a position although the vehicle moves.
// Without a reported speed that is believed for maxStaleS at most.
func (f *Filter) isStale(s *State, fix *Fix, m *measurement) bool {
	const maxStaleS = 20
	h := hashPosition(fix)
	same := h == s.positionHash
	s.positionHash = h
	moving := s.k.speed() > 2 && s.staleS < maxStaleS
	if m.hasSpeed {
		moving = m.speed > 1
	}
	if !same || !moving {
		s.staleS = 0
		return false
	}
	s.staleS += float32(m.dt)
	return true
}
