package gpsfilter

import "math"

// The filter is an interacting multiple model estimator (Blom and Bar-Shalom
// 1988) of four models. Three go by the positions alone: the vehicle stands,
// cruises, or manoeuvres. The fourth is carried by the reported velocity. How
// well each predicts the next fix decides how much it is believed.
const (
	stand = iota
	cruise
	manoeuvre
	carried
	modelCount
)

// track is one model's state. A model that goes by positions has position and
// velocity. The carried model has its velocity from the device; ve and vn are
// the bias of the reported positions instead, which show position + bias +
// white noise, and pv and vv the bias's covariance with the position and its
// variance. East and north share one covariance.
type track struct {
	e, n, ve, vn float64
	pp, pv, vv   float64
}

// seen returns where the model expects fixes.
func (t *track) seen(model int) (e, n float64) {
	if model == carried {
		return t.e + t.ve, t.n + t.vn
	}
	return t.e, t.n
}

// seenVar is the variance per axis of seen.
func (t *track) seenVar(model int) float64 {
	if model == carried {
		return t.pp + float64(2*t.pv) + t.vv
	}
	return t.pp
}

// mixture is the moment-matched sum of models, in the space of fixes.
type mixture struct {
	e, n, ve, vn float64
	pp, pv, vv   float64
}

// mix is the mixture of all models. Its sums are variables, which the compiler
// keeps in registers; those of a struct of this size would go through memory.
func (f *Filter) mix(s *working) mixture {
	ve, vn, vv := f.mixVelocity(s)
	var e, n, pp, pv float64
	for j := range modelCount {
		te, tn := s.tracks[j].seen(j)
		e += float64(s.weight[j] * te)
		n += float64(s.weight[j] * tn)
	}
	for j := range modelCount {
		w, t := s.weight[j], &s.tracks[j]
		te, tn := t.seen(j)
		tve, tvn := s.velocity(j)
		de, dn := te-e, tn-n
		own := t.pv
		if j == carried {
			own = 0
		}
		pp += float64(w * (t.seenVar(j) + halfDot(de, dn, de, dn)))
		pv += float64(w * (own + halfDot(de, dn, tve-ve, tvn-vn)))
	}
	return mixture{e, n, ve, vn, pp, pv, vv}
}

// mixVelocity is the velocity of the mixture of all models and its variance.
func (f *Filter) mixVelocity(s *working) (ve, vn, vv float64) {
	for j := range modelCount {
		e, n := s.velocity(j)
		ve += float64(s.weight[j] * e)
		vn += float64(s.weight[j] * n)
	}
	for j := range modelCount {
		own := s.tracks[j].vv
		if j == carried {
			own = f.reportedVar(s)
		}
		e, n := s.velocity(j)
		ue, un := e-ve, n-vn
		vv += float64(s.weight[j] * (own + halfDot(ue, un, ue, un)))
	}
	return ve, vn, vv
}

// velocity is a model's velocity.
func (s *working) velocity(model int) (e, n float64) {
	if model == carried {
		return float64(s.velE), float64(s.velN)
	}
	return s.tracks[model].ve, s.tracks[model].vn
}

// reportedVar is the variance per axis of the reported velocity, as old as it
// is.
func (f *Filter) reportedVar(s *working) float64 {
	if s.velAgeS < 0 {
		return float64(f.c.StartVelSD * f.c.StartVelSD)
	}
	return float64(f.c.VelocitySD*f.c.VelocitySD) + float64(f.c.CruiseQ*float64(s.velAgeS))
}

func dot(ae, an, be, bn float64) float64 { return float64(ae*be) + float64(an*bn) }

// halfDot is half of dot, rounded before it is added to anything.
func halfDot(ae, an, be, bn float64) float64 { return float64(dot(ae, an, be, bn) / 2) }

// interact moves each model towards the mixture, which it returns, by how likely
// it is that another was right until now.
func (f *Filter) interact(s *working, dt float64) mixture {
	m := f.mix(s)
	stay := f.c.ModeS / (f.c.ModeS + dt)
	move := (1 - stay) / (modelCount - 1)
	for j := range modelCount {
		w := s.weight[j]
		s.weight[j] = float64(stay*w) + float64(move*(1-w))
		from := float64(move*(1-w)) / s.weight[j] // of the model's weight, what comes from elsewhere
		if from >= f.c.LeastMix {
			s.tracks[j].moveTo(j, &m, from)
		}
	}
	return m
}

// moveTo mixes the share from of m into a model.
func (t *track) moveTo(model int, m *mixture, from float64) {
	keep := 1 - from
	both := float64(keep*from) / 2
	e, n := t.seen(model)
	de, dn := m.e-e, m.n-n
	t.pp = float64(keep*t.pp) + float64(from*m.pp) + float64(both*dot(de, dn, de, dn))
	if model == carried {
		// The position goes where fixes are, and the bias with it.
		t.e += float64(from * (de + t.ve))
		t.n += float64(from * (dn + t.vn))
		t.ve *= keep
		t.vn *= keep
		t.pv *= keep
		t.vv *= keep
		return
	}
	t.e += float64(from * de)
	t.n += float64(from * dn)
	if model == stand {
		return
	}
	ue, un := m.ve-t.ve, m.vn-t.vn
	t.ve += float64(from * ue)
	t.vn += float64(from * un)
	t.vv = float64(keep*t.vv) + float64(from*m.vv) + float64(both*dot(ue, un, ue, un))
	t.pv = float64(keep*t.pv) + float64(from*m.pv) + float64(both*dot(de, dn, ue, un))
}

// advance predicts every model by the measurement's time.
func (f *Filter) advance(s *working, m *measurement) {
	c := &f.c
	s.tracks[stand].pp += float64(c.StandQ * m.dt)
	s.tracks[cruise].advance(m.dt, c.CruiseQ)
	s.tracks[manoeuvre].advance(m.dt, c.ManoeuvreQ)
	t := &s.tracks[carried]
	t.e += m.stepE
	t.n += m.stepN
	t.pp += m.stepVar
	// The bias is a first-order Gauss-Markov process (Brown and Hwang).
	keep := c.BiasTauS / (c.BiasTauS + m.dt)
	keep2 := float64(keep * keep)
	t.ve *= keep
	t.vn *= keep
	t.pv *= keep
	t.vv = float64(keep2*t.vv) + float64((1-keep2)*s.biasVar)
}

// advance is the step of a vehicle with white acceleration (Bar-Shalom, Li and
// Kirubarajan 2001, section 6.2).
func (t *track) advance(dt, q float64) {
	t.e += float64(dt * t.ve)
	t.n += float64(dt * t.vn)
	dt2 := float64(dt * dt)
	t.pp += float64(2*float64(dt*t.pv)) + float64(dt2*t.vv) + float64(float64(q*float64(dt2*dt))/whiteAccel3)
	t.pv += float64(dt*t.vv) + float64(float64(q*dt2)/2)
	t.vv += float64(q * dt)
}

// innovations are a fix's distances from where the models expect it.
type innovations struct {
	ye, yn, prior, r [modelCount]float64
	// d2 is the least squared normalised distance over the models, off2 the
	// squared distance in metres from their mixture.
	d2, off2 float64
	// own are the distances from the mixture of the models that go by
	// positions, and its variance per axis.
	ownE, ownN, ownVar float64
}

// expect compares the fix with the models.
func (s *working) expect(m *measurement, r *noise, in *innovations) {
	var e, n, own, ownE, ownN, ownVar float64
	d2 := math.MaxFloat64
	for j := range modelCount {
		t := &s.tracks[j]
		te, tn := t.seen(j)
		ye, yn, prior, noise := m.e-te, m.n-tn, t.seenVar(j), r.positions
		if j == carried {
			noise = r.carried
		}
		in.ye[j], in.yn[j], in.prior[j], in.r[j] = ye, yn, prior, noise
		d2 = atMost(d2, dot(ye, yn, ye, yn)/(prior+noise))
		e += float64(s.weight[j] * ye)
		n += float64(s.weight[j] * yn)
		if j != carried {
			own += s.weight[j]
			ownE, ownN = e, n
		}
	}
	inverse := 1 / own
	ownE = float64(ownE * inverse)
	ownN = float64(ownN * inverse)
	for j := range carried {
		de, dn := in.ye[j]-ownE, in.yn[j]-ownN
		ownVar += float64(float64(s.weight[j]*inverse) * (in.prior[j] + halfDot(de, dn, de, dn)))
	}
	in.d2, in.off2 = d2, dot(e, n, e, n)
	in.ownE, in.ownN, in.ownVar = ownE, ownN, ownVar
}

// update uses a position and weighs the models by how well they predicted it.
// The noise is Student's with 4 degrees of freedom: a doubtful fix moves a model
// less, and no fix decides alone between them.
func (f *Filter) update(s *working, in *innovations) {
	sum := 0.0
	for j := range modelCount {
		ye, yn, prior, r := in.ye[j], in.yn[j], in.prior[j], in.r[j]
		inverse := 1 / (prior + r)
		d2 := float64(dot(ye, yn, ye, yn) * inverse)
		h := f.c.DOF / (f.c.DOF + d2)
		s.weight[j] = float64(s.weight[j] * float64(float64(float64(h*h)*h)*inverse))
		sum += s.weight[j]
		if d2 > 2 {
			inverse = 1 / (prior + float64(r*(f.c.DOF+d2)/(f.c.DOF+2)))
		}
		s.tracks[j].gain(j, ye, yn, inverse)
	}
	inverse := 1 / sum
	for j := range modelCount {
		s.weight[j] = atLeast(f.c.LeastWeight, float64(s.weight[j]*inverse))
	}
}

// gain is the Kalman update by an innovation with the inverse variance inv.
func (t *track) gain(model int, ye, yn, inv float64) {
	hp, hv := t.pp, t.pv
	if model == carried {
		hp, hv = t.pp+t.pv, t.pv+t.vv
	}
	kp, kv := float64(hp*inv), float64(hv*inv)
	t.e += float64(kp * ye)
	t.n += float64(kp * yn)
	t.pp -= float64(kp * hp)
	if model == stand {
		return
	}
	t.ve += float64(kv * ye)
	t.vn += float64(kv * yn)
	t.pv -= float64(kp * hv)
	t.vv -= float64(kv * hv)
}

// begin puts every model at (e, n) with the variance r.
func (f *Filter) begin(s *working, e, n, r float64) {
	velVar := float64(f.c.StartVelSD * f.c.StartVelSD)
	for j := range modelCount {
		s.tracks[j] = track{e: e, n: n, pp: r, vv: velVar}
		s.weight[j] = 1.0 / modelCount
	}
	s.tracks[stand].vv = 0
	// Of the carried model, the sum of position and bias is known.
	t := &s.tracks[carried]
	t.pp, t.pv, t.vv = r+s.biasVar, -s.biasVar, s.biasVar
}

// repair keeps variances positive and bounded against rounding and garbage, and
// speeds below what a vehicle can drive.
func (f *Filter) repair(s *working) {
	c := &f.c
	limit := f.cfg.MaxSpeedMPS
	for j := range s.tracks {
		t := &s.tracks[j]
		t.pp = atMost(c.MaxVar, atLeast(c.FloorVar, t.pp))
		t.vv = atMost(c.MaxVar, atLeast(0, t.vv))
		if most := float64(t.pp * t.vv); float64(t.pv*t.pv) > most {
			t.pv = math.Copysign(math.Sqrt(most), t.pv)
		}
		if v2 := dot(t.ve, t.vn, t.ve, t.vn); j != carried && v2 > float64(limit*limit) {
			k := limit / math.Sqrt(v2)
			t.ve *= k
			t.vn *= k
		}
	}
}
