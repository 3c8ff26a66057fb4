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

// mix is the mixture of all models.
func (f *Filter) mix(s *working) mixture {
	var m mixture
	for j := range modelCount {
		w := s.weight[j]
		e, n := s.tracks[j].seen(j)
		ve, vn := s.velocity(j)
		m.e += float64(w * e)
		m.n += float64(w * n)
		m.ve += float64(w * ve)
		m.vn += float64(w * vn)
	}
	for j := range modelCount {
		w, t := s.weight[j], &s.tracks[j]
		e, n := t.seen(j)
		ve, vn := s.velocity(j)
		de, dn, ue, un := e-m.e, n-m.n, ve-m.ve, vn-m.vn
		pv, vv := t.pv, t.vv
		if j == carried {
			pv, vv = 0, f.reportedVar(s)
		}
		m.pp += float64(w * (t.seenVar(j) + halfDot(de, dn, de, dn)))
		m.vv += float64(w * (vv + halfDot(ue, un, ue, un)))
		m.pv += float64(w * (pv + halfDot(de, dn, ue, un)))
	}
	return m
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
func (s *working) expect(m *measurement, r *noise) innovations {
	in := innovations{d2: math.MaxFloat64}
	var e, n, own float64
	for j := range modelCount {
		t := &s.tracks[j]
		te, tn := t.seen(j)
		in.ye[j], in.yn[j], in.prior[j], in.r[j] = m.e-te, m.n-tn, t.seenVar(j), r.positions
		if j == carried {
			in.r[j] = r.carried
		}
		in.d2 = min(in.d2, dot(in.ye[j], in.yn[j], in.ye[j], in.yn[j])/(in.prior[j]+in.r[j]))
		e += float64(s.weight[j] * in.ye[j])
		n += float64(s.weight[j] * in.yn[j])
		if j != carried {
			own += s.weight[j]
			in.ownE, in.ownN = e, n
		}
	}
	in.off2 = dot(e, n, e, n)
	inverse := 1 / own
	in.ownE *= inverse
	in.ownN *= inverse
	for j := range carried {
		de, dn := in.ye[j]-in.ownE, in.yn[j]-in.ownN
		in.ownVar += float64(float64(s.weight[j]*inverse) * (in.prior[j] + halfDot(de, dn, de, dn)))
	}
	return in
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
		s.weight[j] = max(f.c.LeastWeight, float64(s.weight[j]*inverse))
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
		t.pp = min(c.MaxVar, max(c.FloorVar, t.pp))
		t.vv = min(c.MaxVar, max(0, t.vv))
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
