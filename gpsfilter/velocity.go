package gpsfilter

import "math"

// lag is by how much a part of the reported velocity is late: num over den
// seconds.
type lag struct{ num, den float32 }

func (l *lag) value() float64 { return float64(l.num) / float64(l.den) }

// carry computes the carried model's step: the mean of the reported velocities
// before and now times the time between, put right for a velocity that is late.
func (f *Filter) carry(s *working, m *measurement) {
	c := &f.c
	dt, known, age := m.dt, s.velAgeS >= 0, float64(max(0, s.velAgeS))
	dt2 := float64(dt * dt)
	bridge := float64(c.BridgeMPS2*dt2) / bridge12
	m.stepVar = float64(float64(c.VelocitySD*c.VelocitySD)*dt) + float64(bridge*bridge) + float64(float64(c.JitterShare*float64(s.jitter))*dt)
	le, ln := float64(s.velE), float64(s.velN)
	if !m.hasVelocity || !known {
		m.stepE, m.stepN = float64(dt*le), float64(dt*ln)
		if m.hasVelocity {
			m.stepE, m.stepN = float64(dt*m.ve), float64(dt*m.vn)
		}
		unknown := float64(c.StartVelSD * c.StartVelSD)
		if known {
			unknown = atMost(unknown, float64(c.CruiseQ*(age+dt)))
			s.velAgeS += float32(dt)
		}
		m.stepVar += float64(unknown * dt2)
		if m.hasVelocity {
			s.velE, s.velN, s.velAgeS, s.turnE, s.turnN = float32(m.ve), float32(m.vn), 0, 0, 0
		}
		return
	}
	de, dn := m.ve-le, m.vn-ln
	m.stepE, m.stepN = float64(dt*(m.ve+le))/2, float64(dt*(m.vn+ln))/2
	f.late(s, m, de, dn)
	share := float64(c.BridgeShare * (dt + age))
	m.stepVar += float64(float64(share*share)*halfDot(de, dn, de, dn)) + float64(float64(c.CruiseQ*age)*dt2)
	if age == 0 && dt < c.JitterMaxS {
		f.learnJitter(s, de, dn)
	}
	s.turnE, s.turnN = float32(de), float32(dn)
	s.velE, s.velN, s.velAgeS = float32(m.ve), float32(m.vn), 0
}

// late puts the step right for speed and course that are each late: by their
// change, the position would be elsewhere if the lag were a second longer.
func (f *Filter) late(s *working, m *measurement, de, dn float64) {
	ue, un := 0.0, 1.0
	if v2 := dot(m.ve, m.vn, m.ve, m.vn); v2 >= 1 {
		k := 1 / math.Sqrt(v2)
		ue, un = float64(k*m.ve), float64(k*m.vn)
	}
	along, across := dot(de, dn, ue, un), float64(dn*ue)-float64(de*un)
	m.alongE, m.alongN = float64(along*ue), float64(along*un)
	m.acrossE, m.acrossN = -float64(across*un), float64(across*ue)
	la, lc := s.alongLag.value(), s.acrossLag.value()
	m.stepE += float64(la*m.alongE) + float64(lc*m.acrossE)
	m.stepN += float64(la*m.alongN) + float64(lc*m.acrossN)
}

// learnJitter learns the reported velocity's noise from its second differences.
func (f *Filter) learnJitter(s *working, de, dn float64) {
	c := &f.c
	je, jn := de-float64(s.turnE), dn-float64(s.turnN)
	j := float64(s.jitter)
	j += float64(c.JitterRate * (atMost(dot(je, jn, je, jn)/jitter12, float64(c.Clip*j)+c.SmallVar) - j))
	s.jitter = float32(j)
}

// learnLags takes a step's error and its variance per axis. It is the recursive
// prediction error method (Ljung and Söderström 1983) for a linear model.
func (f *Filter) learnLags(s *working, m *measurement, ue, un, v float64) {
	if !m.hasVelocity || dot(ue, un, ue, un) > float64(f.c.LagClip*(v+f.c.SmallVar)) {
		return
	}
	inverse := 1 / (float64(2*v) + m.stepVar)
	f.learnLag(&s.alongLag, m.alongE, m.alongN, ue, un, inverse)
	f.learnLag(&s.acrossLag, m.acrossE, m.acrossN, ue, un, inverse)
}

func (f *Filter) learnLag(l *lag, e, n, ue, un, inverse float64) {
	c := &f.c
	now := l.value()
	ue += float64(now * e)
	un += float64(now * n)
	num := float64(c.LagForget*float64(l.num)) + float64(inverse*dot(ue, un, e, n))
	den := float64(c.LagForget*(float64(l.den)-c.LagPrior)) + float64(inverse*dot(e, n, e, n)) + c.LagPrior
	most := float64(c.MaxLagS * den)
	l.num, l.den = float32(atMost(most, atLeast(-most, num))), float32(den)
}
