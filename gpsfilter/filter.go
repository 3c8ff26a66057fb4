package gpsfilter

import (
	"fmt"
	"math"
)

// Filter steps states. It is immutable and safe for concurrent use.
type Filter struct {
	cfg            Config
	tune           tuning
	predictLimitMS int64
	forgetAfterMS  int64
}

// New returns a filter, or the faults of cfg.
func New(cfg Config) (*Filter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gpsfilter configuration: %w", err)
	}
	return &Filter{
		cfg:            cfg,
		tune:           defaultTuning,
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
	if s.known() && fix.TimeMS <= s.timeMS {
		return f.estimate(s, VerdictOutOfOrder, 0)
	}
	if !s.known() || fix.TimeMS-s.timeMS > f.forgetAfterMS {
		return f.start(s, &fix)
	}
	m := f.measure(s, &fix)
	s.timeMS = fix.TimeMS
	statedE, statedN := s.k.x[0]+float64(s.leashE), s.k.x[1]+float64(s.leashN)
	stale := f.isStale(s, &fix, &m)
	if stale && m.repeated {
		m.hasVelocity, m.hasSpeed = false, false
	}
	s.k.predict(m.dt, f.processNoise(s, &m))
	f.takeVelocity(s, &m)
	verdict, d, used := VerdictStale, 0.0, false
	if !stale {
		verdict, d, used = f.takePosition(s, &m)
	}
	s.unseenS += float32(m.dt)
	if used {
		s.unseenS = 0
	}
	s.k.repair(f.cfg.MaxSpeedMPS)
	f.leash(s, &m, statedE, statedN)
	if used {
		f.keepNear(s, &m)
	}
	f.display(s, verdict)
	f.reanchor(s)
	return f.estimate(s, verdict, d)
}

// Predict returns where the vehicle is at atMS, after the newest fix, with
// uncertainty that grows. It answers false when the state knows nothing, or
// when atMS is further ahead than Config.PredictLimit; an atMS before the
// newest fix is answered as of that fix. s is not changed.
func (f *Filter) Predict(s *State, atMS int64) (Estimate, bool) {
	if !s.known() || atMS-s.timeMS > f.predictLimitMS {
		return Estimate{}, false
	}
	c := *s
	if atMS > c.timeMS {
		m := measurement{dt: float64(atMS-c.timeMS) / 1000}
		m.since = m.dt + float64(c.unseenS)
		c.k.predict(m.dt, f.processNoise(&c, &m))
		c.timeMS = atMS
	}
	return f.estimate(&c, VerdictNone, 0), true
}

// start begins a track at the fix. What was learned of the device stays.
func (f *Filter) start(s *State, fix *Fix) Estimate {
	learned := s.whiteVar > 0
	*s = State{
		timeMS: fix.TimeMS, anchor: newPlane(fix.LatDeg, fix.LonDeg), reportedAgeS: -1,
		whiteVar: s.whiteVar, seen: s.seen, courses: s.courses, accuracyM: s.accuracyM,
		speedLag: s.speedLag.kept(), courseLag: s.courseLag.kept(),
		odometerM: s.odometerM, outliers: s.outliers,
	}
	if !learned {
		s.courses = startCourses
	}
	m := f.measure(s, fix)
	if !learned {
		sd := f.cfg.DefaultAccuracyM
		if s.accuracyM > 0 {
			sd = float64(s.accuracyM)
		}
		sd *= f.tune.NoiseFraction
		s.whiteVar = float64(sd * sd)
		s.speedLag.s, s.courseLag.s = float32(f.tune.SpeedLagS), float32(f.tune.CourseLagS)
	}
	f.restart(s, 0, 0)
	s.positionHash = hashPosition(fix)
	f.takeVelocity(s, &m)
	return f.estimate(s, VerdictWarmingUp, 0)
}

// restart puts the track at (e, n) with unknown velocity.
func (f *Filter) restart(s *State, e, n float64) {
	sd, bias := f.cfg.DefaultAccuracyM, f.tune.BiasM
	s.k.start(e, n, s.whiteVar+float64(sd*sd), float64(bias*bias), f.tune.StartVelVar)
	s.setMeans(e, n, e, n)
	s.support, s.altCount, s.standS = 1, 0, 0
	s.speedLag, s.courseLag = s.speedLag.kept(), s.courseLag.kept()
	s.leashE, s.leashN = 0, 0
}

// reanchor moves the plane under a vehicle that has gone far from its anchor.
func (f *Filter) reanchor(s *State) {
	e, n := s.k.x[0], s.k.x[1]
	if math.Abs(e)+math.Abs(n) < 10000 {
		return
	}
	lat, lon := s.anchor.toDegrees(e, n)
	s.anchor = newPlane(lat, lon)
	s.k.x[0], s.k.x[1] = 0, 0
	s.displayE -= e
	s.displayN -= n
	for _, v := range [...]*float32{&s.fastE, &s.slowE, &s.altE} {
		*v -= float32(e)
	}
	for _, v := range [...]*float32{&s.fastN, &s.slowN, &s.altN} {
		*v -= float32(n)
	}
}
