package gpsfilter

import "math"

// maxKnownSpeedVar is the variance of a velocity, east and north together,
// above which the filter does not claim to know the speed.
const maxKnownSpeedVar = 100

// estimate states what s knows.
func (f *Filter) estimate(s *State, v Verdict, d float64) Estimate {
	k := &s.k
	est := Estimate{TimeMS: s.timeMS, Verdict: v, NormalisedDistance: d}
	lead := f.tune.LeadS
	est.LatDeg, est.LonDeg = s.anchor.toDegrees(
		k.x[0]+float64(k.x[2]*lead)+float64(s.leashE), k.x[1]+float64(k.x[3]*lead)+float64(s.leashN))

	est.DisplayLatDeg, est.DisplayLonDeg = s.anchor.toDegrees(s.displayE, s.displayN)
	est.OdometerM = s.odometerM

	share, add := f.calibration(s)
	ee, nn := float64(share*k.p[p00]), float64(share*k.p[p11])
	limit := float64(0.999 * math.Sqrt(float64(ee*nn)))
	est.VarEastM2, est.VarNorthM2 = ee+add, nn+add
	est.CovEastNorthM2 = min(limit, max(-limit, float64(share*k.p[p01])))

	te, _, tn := k.innovationCov()
	est.trackVarM2 = max(1e-6, (te+tn)/2)

	speed, velVar := k.speed(), k.p[p22]+k.p[p33]
	if velVar > maxKnownSpeedVar {
		return est
	}
	est.SpeedMPS, est.HasSpeed = speed, true
	if speed > f.tune.HeadingMinSpeed && velVar < float64(speed*speed) {
		est.HeadingDeg, est.HasHeading = bearingDeg(k.x[2], k.x[3]), true
	}
	return est
}

// leash keeps the stated position of a slow vehicle where it was as long as the
// track stays within the leash's length of it: the track of a vehicle that
// stands trembles with its fixes. The leash is the longer the noisier they are,
// and the shorter the faster the vehicle drives; where no velocity is reported,
// the noise makes the track itself look fast.
func (f *Filter) leash(s *State, m *measurement, statedE, statedN float64) {
	t := &f.tune
	noise := math.Sqrt(s.whiteVar)
	length, slow := float64(t.LeashM*(noise/(noise+t.LeashNoise))), t.LeashSpeed
	if !s.hasRecentVelocity() {
		length += float64(t.LeashPerNoise * noise)
		slow += float64(t.LeashSpeedPerNoise*noise) / max(1, m.dt)
	}
	v := s.k.speed()
	if m.hasSpeed {
		v = m.speed
	}
	v /= slow
	v2 := float64(v * v)
	length /= 1 + float64(v2*v2)
	e, n := statedE-s.k.x[0], statedN-s.k.x[1]
	if d := math.Sqrt(float64(e*e) + float64(n*n)); d > length {
		e, n = e*(length/d), n*(length/d)
	}
	s.leashE, s.leashN = float32(e), float32(n)
}

// keepNear keeps the stated position of a vehicle that is not held within the
// fix's accuracy, or NearM, of a fix that was used: nearer than that a device
// knows better. One whose fixes are noisy does not, and gets more room.
func (f *Filter) keepNear(s *State, m *measurement) {
	t := &f.tune
	if s.holds(t) {
		return
	}
	most := float64(0.98 * max(t.NearM, m.accuracyM, float64(t.NearPerVar*s.whiteVar)))
	k := &s.k
	e := k.x[0] + float64(k.x[2]*t.LeadS) + float64(s.leashE) - m.e
	n := k.x[1] + float64(k.x[3]*t.LeadS) + float64(s.leashN) - m.n
	if d := math.Sqrt(float64(e*e) + float64(n*n)); d > most {
		over := 1 - most/d
		s.leashE -= float32(e * over)
		s.leashN -= float32(n * over)
	}
}

// calibration returns what share of the models' covariance is stated, and the
// variance per axis that is added for the errors that the models don't see:
// what is left of a receiver's bias once it has lasted. That grows with the
// noise around it, since multipath brings both, and is larger for devices that
// report neither a velocity nor an accuracy.
func (f *Filter) calibration(s *State) (share, addM2 float64) {
	t := &f.tune
	if s.hasRecentVelocity() {
		return 1, float64(t.UnseenVelocityM * t.UnseenVelocityM)
	}
	if s.accuracyM == 0 {
		return 1, float64(t.UnseenM*t.UnseenM) + float64(t.UnseenPerNoise*s.whiteVar)
	}
	// A device whose noise is more than the accuracy that it claims is in
	// worse trouble than either tells.
	claim := min(5, s.whiteVar/(float64(s.accuracyM)*float64(s.accuracyM)))
	wheel := 0.0
	if s.courses < minCourses {
		// Speed from the wheels says nothing of the position's quality.
		wheel = float64(t.UnseenWheel * float64(s.accuracyM))
	}
	return t.AccurateShare, float64(float64(t.UnseenPerClaim*claim)*s.whiteVar) + float64(wheel*wheel)
}
