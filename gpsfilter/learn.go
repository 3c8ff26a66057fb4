package gpsfilter

import "math"

// rate is a learning rate that is faster at first.
func (s *common) rate(r, start float64) float64 { return atLeast(r, 1/(start+float64(s.seen))) }

// learnWhite moves the white noise of positions as they follow each other by
// the correlation of successive innovations: the gain is right when there is
// none (Mehra 1970). A device that has already filtered its fixes thereby passes
// through. It also learns how much the innovations exceed what is expected.
func (f *Filter) learnWhite(s *working, m *measurement, in *innovations) {
	c := &f.c
	slow := m.dt / c.WhiteS
	fast := 1 / (1 + float64(slow*slow))
	ye, yn := in.ownE, in.ownN
	if m.leastVar == 0 {
		beyond := atLeast(0, halfDot(ye, yn, ye, yn)-in.ownVar-in.r[stand]) / m.factor
		g := float64(fast * atLeast(m.dt/(c.CoverS+m.dt), s.rate(0, c.InnovStart)))
		v := float64(s.innovVar)
		s.innovVar = float32(v + float64(g*(atMost(beyond, float64(c.InnovClip*v)+1)-v)))
	}
	scale := 1 / math.Sqrt(in.ownVar+in.r[stand])
	ye = atLeast(-c.WhiteClip, atMost(c.WhiteClip, float64(ye*scale)))
	yn = atLeast(-c.WhiteClip, atMost(c.WhiteClip, float64(yn*scale)))
	correlation := dot(ye, yn, float64(s.innovE), float64(s.innovN)) / 2
	g := float64(float64(s.rate(c.WhiteRate, 2)*fast) * c.WhiteStep)
	s.whiteVar = float64(s.whiteVar * (1 - float64(g*atLeast(-1, atMost(1, correlation)))))
	s.whiteVar = atMost(c.CeilingVar, atLeast(c.FloorVar, s.whiteVar))
	s.innovE, s.innovN = float32(ye), float32(yn)
}

// learnCarried learns, against the reported velocity, the white noise from
// single steps and the bias from the distance to a dead-reckoned mean.
func (f *Filter) learnCarried(s *working, m *measurement) {
	c := &f.c
	if s.velAgeS < 0 || float64(s.velAgeS) > c.VelocityMemoryS {
		s.slowCount = 0
		return
	}
	if s.slowCount == 0 {
		s.slowE, s.slowN, s.slowCount = float32(m.e), float32(m.n), 1
		s.lastE, s.lastN = float32(m.e), float32(m.n)
		return
	}
	ue, un := m.e-float64(s.lastE)-m.stepE, m.n-float64(s.lastN)-m.stepN
	v := s.stepVar
	half := float64(m.stepVar / 2)
	g := s.rate(c.NoiseRate, 2) * v / (v + half)
	u2 := atLeast(0, float64(dot(ue, un, ue, un)/twoSteps)-half) / m.factor
	v += float64(g * (atMost(u2, float64(c.Clip*v)+c.SmallVar) - v))
	s.stepVar = atMost(c.CeilingVar, atLeast(c.StepFloorVar, v))
	f.learnLags(s, m, ue, un, v)
	f.learnBias(s, m)
	s.lastE, s.lastN = float32(m.e), float32(m.n)
}

// learnBias learns what lasts of the distance between fixes and their
// dead-reckoned mean, less what the mean itself drifts.
func (f *Filter) learnBias(s *working, m *measurement) {
	c := &f.c
	s.slowE += float32(m.stepE)
	s.slowN += float32(m.stepN)
	de, dn := m.e-float64(s.slowE), m.n-float64(s.slowN)
	g := atLeast(m.dt/(c.SlowMeanS+m.dt), 1/(1+float64(s.slowCount)))
	s.slowE += float32(g * de)
	s.slowN += float32(g * dn)
	s.slowCount = min(uint16(c.MaxCount), s.slowCount+1)
	b := s.devVar
	drift := float64(m.stepVar*c.SlowMeanS) / (2 * m.dt)
	dev := atLeast(0, halfDot(de, dn, de, dn)-drift) / m.factor
	rate := atLeast(m.dt/(c.BiasRateS+m.dt), 1/(c.StartCount+float64(s.slowCount))) * b / (b + drift)
	b += float64(rate * (atMost(dev, float64(c.Clip*b)+c.SmallVar) - b))
	s.devVar = atMost(c.CeilingVar, atLeast(c.SmallVar, b))
	s.biasVar = atLeast(c.SmallVar, float64(c.BiasGain*(s.devVar-s.stepVar)))
}

// belief is how far the carried model's knowledge of errors counts.
type belief struct {
	// trust is the share of its bias that is believed, from 0 to 1.
	trust float64
	// fade is how far its knowledge counts at this time between fixes, from 0
	// to 1.
	fade float64
}

// believe computes it from what was learned and the time between fixes.
func (f *Filter) believe(s *working) belief {
	slow := float64(s.gapS) / f.c.BiasTauS
	b := belief{fade: 1 / (1 + float64(slow*slow))}
	if s.velAgeS >= 0 && float64(s.velAgeS) <= 2*f.c.VelocityMemoryS {
		b.trust = float64(atLeast(0, atMost(1, float64(s.trustNum)/float64(s.trustDen))) * b.fade)
	}
	return b
}

// learnTrust asks, some time later, whether the fixes have come back to where
// the carried model had put the vehicle. If its bias was one, they have; if its
// velocity drifts, or the error lasts for ever, they have not, and the position
// is left where fixes show it. It is the regression of how the fixes have moved
// against the dead-reckoned place on the bias of then.
func (f *Filter) learnTrust(s *working, m *measurement) {
	c := &f.c
	t := &s.tracks[carried]
	f.carrySnap(s, m)
	if float64(s.snapAgeS) >= c.TrustS {
		e, n := t.seen(carried)
		de, dn := e-float64(s.snapE), n-float64(s.snapN)
		be, bn := float64(s.snapBE), float64(s.snapBN)
		b2 := dot(be, bn, be, bn)
		all := dot(de, dn, de, dn) + b2 + s.stepVar + m.stepVar
		prior := float64(c.TrustStart * c.TrustPrior)
		s.trustNum = float32(float64(c.TrustForget*(float64(s.trustNum)-prior)) - dot(de, dn, be, bn)/all + prior)
		s.trustDen = float32(float64(c.TrustForget*(float64(s.trustDen)-c.TrustPrior)) + b2/all + c.TrustPrior)
		s.snapAgeS = -1
	}
	if s.snapAgeS < 0 && s.velAgeS >= 0 {
		e, n := t.seen(carried)
		s.snapE, s.snapN, s.snapBE, s.snapBN, s.snapAgeS = float32(e), float32(n), float32(t.ve), float32(t.vn), 0
	}
}

// carrySnap dead-reckons the place that learnTrust asks about.
func (f *Filter) carrySnap(s *working, m *measurement) {
	if s.snapAgeS < 0 {
		return
	}
	s.snapE += float32(m.stepE)
	s.snapN += float32(m.stepN)
	s.snapAgeS += float32(m.dt)
	if m.dt > f.c.TrustMaxS {
		s.snapAgeS = -1
	}
}

// Diagnosis returns what the state has learned of the device.
func (s *State) Diagnosis() Diagnosis {
	d := Diagnosis{
		Fixes: int(s.seen), HasVelocity: s.velAgeS >= 0 && s.seen > 0,
		OutlierShare: float64(s.outliers), BiasM: math.Sqrt(s.biasVar),
	}
	spread := s.whiteVar + float64(s.innovVar)
	if d.HasVelocity {
		d.VelocityCredibility = atLeast(0, atMost(1, float64(s.credible)))
		spread = s.stepVar + s.biasVar
	}
	if s.accuracyM > 0 {
		d.AccuracyScale = math.Sqrt(spread) / float64(s.accuracyM)
	}
	return d
}

// learnDevice keeps what only the diagnosis needs.
func (f *Filter) learnDevice(s *working, m *measurement, v Verdict) {
	out := 0.0
	if v == VerdictOutlier || v == VerdictStale {
		out = 1
	}
	s.outliers += float32(f.c.RateOutliers * (out - float64(s.outliers)))
	if m.hasVelocity && (m.speed > f.c.MovingMPS || s.weight[stand] < 1.0/2) {
		s.credible += float32(f.c.RateCredible * (s.weight[carried] - float64(s.credible)))
	}
}
