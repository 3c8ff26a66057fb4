package gpsfilter

// takeVelocity uses the reported velocity, or the speed alone. Both are late
// by the learned lag, which the acceleration makes up for.
func (f *Filter) takeVelocity(s *State, m *measurement) {
	t := &f.tune
	k := &s.k
	switch {
	case m.hasVelocity:
		acc2 := float64(m.accE*m.accE) + float64(m.accN*m.accN)
		base := float64(t.SpeedSD * t.SpeedSD)
		along := base + float64(float64(t.AccelSD*t.AccelSD)*acc2)
		h := float64(t.HeadingSD * m.speed)
		across := base + float64(h*h) + float64(float64(t.CrossAccelSD*t.CrossAccelSD)*acc2)
		if m.drives() {
			// A receiver smooths its course, most of all when it is slow.
			low := t.LowSpeedSD / (1 + float64(m.speed*m.speed)/25)
			across += float64(low * low)
		}
		lag := float64(s.lagS)
		ve := float64(m.speed*m.ue) + float64(lag*m.accE)
		vn := float64(m.speed*m.un) + float64(lag*m.accN)
		k.updateVelocity(m.ue, m.un, float64(ve*m.ue)+float64(vn*m.un), along)
		k.updateVelocity(-m.un, m.ue, float64(vn*m.ue)-float64(ve*m.un), across)
	case m.hasSpeed:
		v := k.speed()
		if v > 1 && k.p[p22]+k.p[p33] < float64(v*v) {
			k.updateVelocity(k.x[2]/v, k.x[3]/v, m.speed, float64(t.WheelSD*t.WheelSD))
		}
	}
}

// learnLag learns by how much the reported velocity is later than the
// position, by recursive prediction error (Ljung and Söderström, "Theory and
// Practice of Recursive Identification", 1983): lagE and lagN are how far the
// predicted position would be elsewhere if the lag were one second longer. It
// takes the innovation, its measurement variance and its predicted variance.
func (f *Filter) learnLag(s *State, ie, in, r, prior float64) {
	t := &f.tune
	le, ln := float64(s.lagE), float64(s.lagN)
	g2 := float64(le*le) + float64(ln*ln)
	v := r + prior
	if g2 > t.LagMinDV {
		info := float64(float64(s.lagInfo)*t.LagForget) + g2/v
		dot := float64(le*ie) + float64(ln*in)
		s.lagInfo = float32(info)
		s.lagS = min(1.2, max(-0.3, s.lagS+float32(dot/v/(info+t.LagPrior))))
	}
	keep := float32(r / v)
	s.lagE *= keep
	s.lagN *= keep
}
