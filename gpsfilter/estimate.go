package gpsfilter

import "math"

// settle computes the live position: the models' mean, with as much of the
// carried model's bias taken off as is believed.
func (f *Filter) settle(s *working, b belief) {
	s.liveE, s.liveN = s.mean(b)
}

// mean is where the models put the vehicle.
func (s *working) mean(b belief) (e, n float64) {
	keep := 1 - b.trust
	for j := range modelCount {
		te, tn := s.tracks[j].stated(j, keep)
		e += float64(s.weight[j] * te)
		n += float64(s.weight[j] * tn)
	}
	return e, n
}

// stated is where a model puts the vehicle, with the share keep of the bias.
func (t *track) stated(model int, keep float64) (e, n float64) {
	if model != carried {
		return t.e, t.n
	}
	return t.e + float64(keep*t.ve), t.n + float64(keep*t.vn)
}

// variance is the stated variance per axis: what the models know of, and what
// the fixes cannot show.
func (f *Filter) variance(s *working, b belief) float64 {
	c := &f.c
	trust := b.trust
	cover, innovation := float64(c.CoverM*c.CoverM), float64(c.CoverInnovation*float64(s.innovVar))
	v := 0.0
	for j := range modelCount {
		t := &s.tracks[j]
		e, n := t.stated(j, 1-trust)
		own := t.pp + cover + innovation
		if j == carried {
			own = float64(trust*t.pp) + float64((1-trust)*atLeast(s.biasVar, t.pp)) + float64(c.CoverCarriedM*c.CoverCarriedM)
			own = float64(own * c.CoverCarried)
			own += float64((1 - b.fade) * cover)
		}
		de, dn := e-s.liveE, n-s.liveN
		v += float64(s.weight[j] * (own + halfDot(de, dn, de, dn)))
	}
	return atMost(c.MaxVar, v)
}

// known is what is computed of a state to state it: the velocity with its
// variance, and the position's stated variance per axis.
type known struct{ ve, vn, vv, variance float64 }

func (f *Filter) know(s *working, b belief) known {
	ve, vn, vv := f.mixVelocity(s)
	return known{ve, vn, vv, f.variance(s, b)}
}

// estimate states what s knows.
func (f *Filter) estimate(s *working, k *known, v Verdict, d float64) Estimate {
	c := &f.c
	est := Estimate{TimeMS: s.timeMS, Verdict: v, NormalisedDistance: d, OdometerM: s.odometerM}
	est.LatDeg, est.LonDeg = s.anchor.toDegrees(s.liveE, s.liveN)
	est.DisplayLatDeg, est.DisplayLonDeg = s.anchor.toDegrees(float64(s.displayE), float64(s.displayN))
	variance := atLeast(k.variance, float64(s.leastVar))
	est.VarEastM2, est.VarNorthM2 = variance, variance
	if k.vv > float64(c.SpeedKnownSD*c.SpeedKnownSD) {
		return est
	}
	est.SpeedMPS, est.HasSpeed = math.Sqrt(dot(k.ve, k.vn, k.ve, k.vn)), true
	if est.SpeedMPS > c.MovingMPS && 2*k.vv < float64(est.SpeedMPS*est.SpeedMPS) {
		est.HeadingDeg, est.HasHeading = bearingDeg(k.ve, k.vn), true
	}
	return est
}

// display drags the display position behind the live one, by at most a share of
// the stated deviation, which is longer the slower the vehicle is: one that
// stands draws no path. Single doubtful fixes do not move it, and a relocation
// moves it without counting as distance.
func (f *Filter) display(s *working, m *measurement, k *known, v Verdict) {
	c := &f.c
	switch v {
	case VerdictWarmingUp:
		s.displayE, s.displayN = float32(s.liveE), float32(s.liveN)
		return
	case VerdictAccepted, VerdictStandstill:
		s.doubts = 0
	default:
		if s.doubts++; float64(s.doubts) < c.DisplayDoubts {
			return
		}
		s.doubts = uint8(c.DisplayDoubts)
	}
	v2 := dot(k.ve, k.vn, k.ve, k.vn)
	if m.hasSpeed {
		v2 = atMost(v2, float64(m.speed*m.speed))
	}
	if v == VerdictStandstill {
		v2 = 0
	}
	slow := 1 + c.DisplayStand/(1+v2/float64(c.DisplayMPS*c.DisplayMPS))
	trail := float64(float64(c.DisplayShare*math.Sqrt(k.variance)) * slow)
	e, n := s.liveE-float64(s.displayE), s.liveN-float64(s.displayN)
	d := math.Sqrt(dot(e, n, e, n))
	if d <= trail {
		return
	}
	way := d - trail
	s.odometerM += way
	s.displayE += float32(e * (way / d))
	s.displayN += float32(n * (way / d))
}
