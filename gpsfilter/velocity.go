package gpsfilter

// lag is by how much a reported part of the velocity is later than the
// position.
type lag struct {
	// s is the lag in seconds, info how much has been learned of it.
	s, info float32
	// e and n are how far the predicted position would be elsewhere if the lag
	// were one second longer.
	e, n float32
}

// moves tells of a change of the reported velocity.
func (l *lag) moves(de, dn float64) {
	l.e += float32(de)
	l.n += float32(dn)
}

// kept is what was learned, for a new track.
func (l *lag) kept() lag { return lag{s: l.s, info: l.info} }

// takeVelocity uses the reported velocity, or the speed alone. Speed and course
// are each late by a learned lag, which the acceleration makes up for. A
// receiver smooths its course, most of all when it is slow.
func (f *Filter) takeVelocity(s *State, m *measurement) {
	t := &f.tune
	switch {
	case m.hasVelocity:
		al2, ac2 := float64(m.accAlong*m.accAlong), float64(m.accAcross*m.accAcross)
		base := float64(t.SpeedSD * t.SpeedSD)
		along := base + float64(t.SpeedPerAlong*al2) + float64(t.SpeedPerAcross*ac2)
		h := float64(t.HeadingSD * m.speed)
		across := base + float64(h*h) + float64(t.CoursePerAlong*al2) + float64(t.CoursePerAcross*ac2)
		courseLag := float64(s.courseLag.s)
		if m.drives() {
			low := t.LowSpeedSD / (1 + float64(m.speed*m.speed)/25)
			across += float64(low * low)
			v := m.speed / t.SlowLagMPS
			courseLag += t.SlowLagS / (1 + float64(v*v))
		}
		s.k.updateVelocity(m.ue, m.un, m.speed+float64(float64(s.speedLag.s)*m.accAlong), along)
		s.k.updateVelocity(-m.un, m.ue, float64(courseLag*m.accAcross), across)
	case m.hasSpeed:
		f.takeSpeed(s, m)
	}
}

// takeSpeed uses a reported speed without a course, by the second-order
// extended Kalman filter (Bar-Shalom, Li and Kirubarajan 2001, section 10.3.2):
// where the direction is uncertain, the speed is more than the length of the
// mean velocity.
func (f *Filter) takeSpeed(s *State, m *measurement) {
	k := &s.k
	v := k.speed()
	if v <= 1 || k.p[p22]+k.p[p33] >= float64(v*v) {
		return
	}
	ue, un := k.x[2]/v, k.x[3]/v
	across := float64(float64(un*un)*k.p[p22]) - float64(2*float64(float64(ue*un)*k.p[p23])) + float64(float64(ue*ue)*k.p[p33])
	longer := max(0, across) / float64(2*v)
	wheel := f.tune.WheelSD
	k.updateVelocity(ue, un, m.speed-longer, float64(wheel*wheel)+float64(2*float64(longer*longer)))
}

// learnLags takes the innovation, its measurement variance and its predicted
// variance.
func (f *Filter) learnLags(s *State, in *innovation) {
	f.learnLag(&s.speedLag, in)
	f.learnLag(&s.courseLag, in)
}

// learnLag learns a lag by recursive prediction error (Ljung and Söderström,
// "Theory and Practice of Recursive Identification", 1983).
func (f *Filter) learnLag(l *lag, in *innovation) {
	t := &f.tune
	le, ln := float64(l.e), float64(l.n)
	g2 := float64(le*le) + float64(ln*ln)
	v := in.r + in.prior
	if g2 > t.LagMinDV {
		info := float64(float64(l.info)*t.LagForget) + g2/v
		dot := float64(le*in.e) + float64(ln*in.n)
		l.info = float32(info)
		l.s = min(1.2, max(-0.3, l.s+float32(dot/v/(info+t.LagPrior))))
	}
	keep := float32(in.r / v)
	l.e *= keep
	l.n *= keep
}
