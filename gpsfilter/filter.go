package gpsfilter

import (
	"fmt"
)

// Filter steps states. It is immutable and safe for concurrent use.
type Filter struct {
	cfg            Config
	c              constants
	predictLimitMS int64
	forgetAfterMS  int64
}

// New returns a filter, or the faults of cfg.
func New(cfg Config) (*Filter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gpsfilter configuration: %w", err)
	}
	c, err := tableConstants()
	if err != nil {
		return nil, fmt.Errorf("gpsfilter: %w", err)
	}
	return &Filter{
		cfg:            cfg,
		c:              c,
		predictLimitMS: cfg.PredictLimit.Milliseconds(),
		forgetAfterMS:  cfg.ForgetAfter.Milliseconds(),
	}, nil
}

// Step takes the next fix into s and returns where the vehicle is at the
// fix's time. A fix that is not after the one before it changes nothing: the
// answer is the estimate as it stands, with VerdictOutOfOrder. Every number of
// fix must be finite and its coordinate valid; Step does not check.
//
// The result depends on s and fix alone and is the same to the bit on every
// architecture. Step does not allocate.
func (f *Filter) Step(s *State, fix Fix) Estimate {
	var w working
	s.unpack(&w)
	if w.known() && fix.TimeMS <= w.timeMS {
		k := f.know(&w, f.believe(&w))
		return f.estimate(&w, &k, VerdictOutOfOrder, 0)
	}
	if !w.known() || fix.TimeMS-w.timeMS > f.forgetAfterMS {
		f.start(s, &w, &fix)
		k := f.know(&w, f.believe(&w))
		return f.estimate(&w, &k, VerdictWarmingUp, 0)
	}
	m := f.measure(&w, &fix)
	w.timeMS, w.gapS = fix.TimeMS, float32(m.dt)
	before := f.interact(&w, m.dt)
	f.advance(&w, &m)
	f.chain(&w, &fix, &m)
	verdict, d := f.judge(&w, &m, &before)
	f.learnDevice(&w, &m, verdict)
	s.round(&w)
	b := f.believe(&w)
	f.settle(&w, b)
	f.guard(&w, &m, verdict)
	k := f.know(&w, b)
	f.reanchor(&w)
	f.display(&w, &m, &k, verdict)
	s.place(&w)
	return f.estimate(&w, &k, verdict, d)
}

// Predict returns where the vehicle is at atMS, after the newest fix, with
// uncertainty that grows. It returns false when the state knows nothing, or
// when atMS is further ahead than Config.PredictLimit; an atMS before the
// newest fix gives the estimate as of that fix. s is not changed.
func (f *Filter) Predict(s *State, atMS int64) (Estimate, bool) {
	if !s.known() || atMS-s.timeMS > f.predictLimitMS {
		return Estimate{}, false
	}
	ahead := *s
	var w working
	ahead.unpack(&w)
	b := f.believe(&w)
	k := f.know(&w, b)
	if atMS <= s.timeMS {
		return f.estimate(&w, &k, VerdictNone, 0), true
	}
	m := measurement{dt: float64(atMS-w.timeMS) / msPerS}
	// What the safety net has moved stays moved.
	e, n := w.mean(b)
	e, n = w.liveE-e, w.liveN-n
	f.carry(&w, &m)
	f.advance(&w, &m)
	b = f.believe(&w) // the velocity has aged
	f.settle(&w, b)
	w.liveE += e
	w.liveN += n
	w.timeMS = atMS
	then := f.know(&w, b)
	w.leastVar += float32(max(0, then.variance-k.variance))
	return f.estimate(&w, &then, VerdictNone, 0), true
}

// start begins a track at the fix. What was learned of the device stays.
func (f *Filter) start(at *State, s *working, fix *Fix) {
	old := at.common
	at.common = common{
		timeMS: fix.TimeMS, anchor: newPlane(fix.LatDeg, fix.LonDeg), velAgeS: -1,
		odometerM: old.odometerM, whiteVar: old.whiteVar, stepVar: old.stepVar, devVar: old.devVar, biasVar: old.biasVar,
		innovVar: old.innovVar, accuracyM: old.accuracyM, jitter: old.jitter, alongLag: old.alongLag,
		acrossLag: old.acrossLag, trustNum: old.trustNum, trustDen: old.trustDen, seen: old.seen,
		outliers: old.outliers, credible: old.credible, courseless: old.courseless,
	}
	s.tracks, s.weight = [modelCount]track{}, [modelCount]float64{}
	if !old.known() {
		f.guess(s, fix)
	}
	m := f.measure(s, fix)
	f.restart(s, &m)
	at.round(s)
	at.place(s)
	s.chainLatDeg, s.chainLonDeg, s.chainCount = fix.LatDeg, fix.LonDeg, 1
	f.settle(s, f.believe(s))
	s.displayE, s.displayN = float32(s.liveE), float32(s.liveN)
}

// guess is what is assumed of a device that is new.
func (f *Filter) guess(s *working, fix *Fix) {
	c := &f.c
	sd := f.cfg.DefaultAccuracyM
	if fix.Has&FieldAccuracy != 0 && fix.AccuracyM > 0 {
		sd = min(max(float64(fix.AccuracyM), f.cfg.MinAccuracyM), c.MaxAccuracyM/msPerS)
	}
	s.biasVar = float64(sd * sd)
	s.devVar = s.biasVar
	sd *= c.NoiseFraction
	s.whiteVar = max(c.FloorVar, float64(sd*sd))
	s.stepVar = max(c.StepFloorVar, s.whiteVar)
	s.jitter = float32(c.JitterStart)
	s.alongLag.den, s.acrossLag.den = float32(c.LagPrior), float32(c.LagPrior)
	s.trustNum, s.trustDen = float32(c.TrustStart*c.TrustPrior), float32(c.TrustPrior)
}

// restart puts the track at the fix, with unknown velocity.
func (f *Filter) restart(s *working, m *measurement) {
	r := f.noise(s, m).positions
	if m.accuracyM > f.c.CoarseM {
		r = max(r, float64(f.c.CoarseVar*float64(m.accuracyM*m.accuracyM)))
	}
	f.begin(s, m.e, m.n, r)
	s.support, s.altCount, s.slowCount, s.snapAgeS = 1, 0, 0, -1
	s.innovE, s.innovN = 0, 0
}

// reanchor moves the plane under a vehicle that has gone far from its anchor.
func (f *Filter) reanchor(s *working) {
	e, n := s.liveE, s.liveN
	if !f.isFar(e, n) {
		return
	}
	lat, lon := s.anchor.toDegrees(e, n)
	s.anchor = newPlane(lat, lon)
	for j := range s.tracks {
		s.tracks[j].e -= e
		s.tracks[j].n -= n
	}
	s.liveE, s.liveN = 0, 0
	for _, v := range [...]*float32{&s.displayE, &s.slowE, &s.lastE, &s.snapE} {
		*v -= float32(e)
	}
	for _, v := range [...]*float32{&s.displayN, &s.slowN, &s.lastN, &s.snapN} {
		*v -= float32(n)
	}
}
