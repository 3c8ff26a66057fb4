package gpsfilter

import "math"

const (
	// maxSupport bounds State.support.
	maxSupport = 8
	// maxSeen bounds State.seen.
	maxSeen = 1000
	// gapS and gapM say when a fix after a gap is taken on trust.
	gapS, gapM = 8, 50
)

// innovation is a fix's position minus the predicted one, with its variance.
type innovation struct {
	e, n float64
	// r is the fix's variance per axis, prior the prediction's mean over the
	// axes.
	r, prior float64
	// d2 is the squared normalised length, off2 the squared length in metres.
	d2, off2 float64
}

func (f *Filter) innovation(s *State, m *measurement) innovation {
	floor := f.tune.NoiseFloorM
	in := innovation{
		e: m.e - s.k.x[0] - s.k.x[4], n: m.n - s.k.x[1] - s.k.x[5],
		r: float64(max(s.whiteVar, float64(floor*floor)) * m.noiseFactor),
	}
	ee, en, nn := s.k.innovationCov()
	in.prior = (ee + nn) / 2
	in.d2 = mahalanobis(in.e, in.n, ee+in.r, en, nn+in.r)
	in.off2 = float64(in.e*in.e) + float64(in.n*in.n)
	return in
}

// takePosition judges the position and uses it. It returns the verdict, the
// normalised distance, and whether the track has used the position.
func (f *Filter) takePosition(s *State, m *measurement) (v Verdict, d float64, used bool) {
	t := &f.tune
	in := f.innovation(s, m)
	d = math.Sqrt(in.d2)
	impossible := false
	if s.holds(t) && !m.drives() {
		if s.sinceHeld(m) <= maxHoldS && in.off2 > float64(t.JumpMaxM*t.JumpMaxM) {
			impossible = true
		} else if v, done := f.holdJump(s, m, &in); done {
			return v, d, s.altCount == 0
		} else {
			in = f.innovation(s, m)
			d = math.Sqrt(in.d2)
		}
	}
	gate := t.Gate
	if s.support < 2 {
		gate = t.StartGate
	}
	if impossible || in.d2 > gate && in.off2 > float64(t.GateM*t.GateM) {
		if f.alternative(s, m) {
			return VerdictWarmingUp, d, true
		}
		s.support = max(0, s.support-0.5)
		return VerdictOutlier, d, false
	}
	s.confirm(m, &in)
	turns, clip := false, t.NoiseClip
	if f.persists(s, m, &in) {
		// Noise does not do that; a turn, a brake or a bias does.
		clip = t.TurnClip
		turns = f.manoeuvre(s, m, &in)
	}
	f.learnNoise(s, &in, clip)
	standing := f.standstill(s, m)
	f.learnLags(s, &in)
	// A Student-t measurement: the variance grows with the distance (Roth,
	// Özkan and Gustafsson, "A Student's t filter for heavy tailed process and
	// measurement noise", 2013).
	if !turns {
		dof := t.DOF
		if s.hasRecentVelocity() {
			dof = t.DOFVelocity
		}
		in.r *= (dof + in.d2) / (dof + 2)
	}
	s.k.updatePosition(m.e, m.n, in.r)
	switch {
	case in.d2 > 9:
		return VerdictCorrected, d, true
	case standing:
		return VerdictStandstill, d, true
	}
	return VerdictAccepted, d, true
}

// confirm counts a fix that agrees with the track. After a gap a fix far off
// is taken on trust, so little speaks for the track until the next agrees.
func (s *State) confirm(m *measurement, in *innovation) {
	s.support = min(maxSupport, s.support+1)
	if m.dt > gapS && in.off2 > gapM*gapM {
		s.support = 2
		if in.d2 > 6 {
			s.support = 1
		}
	}
	s.altCount = max(0, s.altCount-1)
	s.altAgeS += float32(m.dt)
}

// persists says whether the fix of a vehicle that drives is off in the same
// direction as the one before it, and no further than a vehicle can have got.
func (f *Filter) persists(s *State, m *measurement, in *innovation) bool {
	t := &f.tune
	pe, pn := float64(s.offE), float64(s.offN)
	fast := m.drives() || s.k.speed() >= t.TurnMinMPS
	most := float64(t.TurnMostMPS2*float64(m.dt*m.dt)) + float64(t.TurnMostPerNoise*math.Sqrt(s.whiteVar))
	if in.d2 < t.TurnDistance || in.off2 > float64(most*most) || m.dt > t.TurnMaxS || !fast {
		s.offE, s.offN = 0, 0
		return false
	}
	s.offE, s.offN = float32(in.e), float32(in.n)
	dot := float64(pe*in.e) + float64(pn*in.n)
	p2 := float64(pe*pe) + float64(pn*pn)
	return dot > 0 && float64(dot*dot) >= float64(float64(t.TurnCos2*p2)*in.off2)
}

// manoeuvre says whether a fix that persists shows that the vehicle brakes or
// turns; a device that reports its velocity would have told. Then the fix counts
// in full, and where the device reports that the vehicle drives but not where
// to, the velocity is set free across the course.
func (f *Filter) manoeuvre(s *State, m *measurement, in *innovation) bool {
	if m.hasVelocity {
		return false
	}
	if m.drives() {
		free := float64(f.tune.TurnGain * in.off2)
		perS := free / m.dt
		if v := s.k.speed(); v > 1 {
			s.k.freeAcross(s.k.x[2]/v, s.k.x[3]/v, free, perS, perS/m.dt)
		} else {
			s.k.free(free, perS, perS/m.dt)
		}
	}
	return true
}

// learnNoise moves the white noise's variance up the gradient of the
// innovation's likelihood, clipped against outliers (adaptive filtering by
// innovations: Mehra, "On the identification of variances and adaptive Kalman
// filtering", 1970).
func (f *Filter) learnNoise(s *State, in *innovation, clip float64) {
	share := in.r / (in.r + in.prior)
	rate := max(f.tune.NoiseRate, f.tune.NoiseStartRate/(1+float64(0.25*float64(s.seen))))
	s.seen = min(maxSeen, s.seen+1)
	s.whiteVar *= 1 + float64(float64(rate*share)*(min(in.d2, clip)/1.9-1))
	s.whiteVar = min(1e8, max(1e-4, s.whiteVar))
}

// alternative remembers a place that disagrees with the track, and moves the
// track there when enough fixes in a row have shown it: one when next to
// nothing speaks for the track, more when more does. It says whether it moved.
func (f *Filter) alternative(s *State, m *measurement) bool {
	t := &f.tune
	s.altAgeS += float32(m.dt)
	de, dn := m.e-float64(s.altE), m.n-float64(s.altN)
	speed := t.AltSpeed
	if m.hasSpeed {
		speed = float64(1.3*m.speed) + 5
	}
	limit := 20 + float64(3*math.Sqrt(s.whiteVar)) + float64(speed*float64(s.altAgeS))
	if s.altCount > 0 && float64(de*de)+float64(dn*dn) < float64(limit*limit) {
		s.altCount++
	} else {
		s.altCount = 1
	}
	s.altE, s.altN, s.altAgeS = float32(m.e), float32(m.n), 0
	need := float32(3)
	switch {
	case s.support < 1.5:
		need = 1
	case s.support < 4 || m.dt > 2:
		need = 2
	}
	if s.altCount < need {
		return false
	}
	count := s.altCount
	f.restart(s, m.e, m.n)
	s.support = count
	return true
}
