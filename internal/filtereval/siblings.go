package filtereval

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/starling-fleet/starling/gpsfilter"
)

// sim drives a vehicle whose fixes a quirk then spoils.
type sim struct {
	rng   *rand.Rand
	fixes []gpsfilter.Fix
	truth []TruthPoint
}

const (
	simStartMS    = 1_764_000_000_000
	simLat        = 48.2
	simLon        = 16.37
	everything    = gpsfilter.FieldAccuracy | gpsfilter.FieldSpeed | gpsfilter.FieldHeading
	simAccuracyM  = 5
	simNoiseM     = 3
	simTruthEvery = 500
)

// drive is n fixes, one each period, of a vehicle that drives with turns at the
// speed and stops at stopS for good (never when 0).
func drive(seed uint64, n int, periodS, speedMPS, stopS float64) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 0xd21e))}
	cos := math.Cos(simLat * math.Pi / 180)
	e, nn, course := 0.0, 0.0, 60+30*s.rng.Float64()
	const dt = 0.1
	next := 0
	for k := 0; next < n; k++ {
		t := float64(k) * dt
		v := speedMPS
		if stopS > 0 {
			v = speedMPS * max(0, min(1, (stopS-t)/6))
		}
		if math.Mod(t, 90) > 84 && v > 0 {
			course += 15 * dt
		}
		at := simStartMS + int64(math.Round(t*1000))
		lat, lon := simLat+nn/metresPerDeg, simLon+e/(metresPerDeg*cos)
		if int64(math.Round(t*1000))%simTruthEvery == 0 {
			s.truth = append(s.truth, TruthPoint{at, lat, lon})
		}
		if t >= float64(next)*periodS-1e-9 {
			f := gpsfilter.Fix{
				TimeMS: at, Has: everything, AccuracyM: simAccuracyM, SpeedMPS: float32(v), HeadingDeg: float32(math.Mod(course+360, 360)),
				LatDeg: lat + simNoiseM*s.rng.NormFloat64()/metresPerDeg, LonDeg: lon + simNoiseM*s.rng.NormFloat64()/(metresPerDeg*cos),
			}
			if v < 0.2 {
				f.SpeedMPS, f.Has = 0, f.Has&^gpsfilter.FieldHeading
			}
			s.fixes = append(s.fixes, f)
			next++
		}
		a := course * math.Pi / 180
		e, nn = e+v*dt*math.Sin(a), nn+v*dt*math.Cos(a)
	}
	last := s.truth[len(s.truth)-1]
	last.TimeMS += simTruthEvery
	s.truth = append(s.truth, last)
	return s
}

// each applies fn to every fix.
func (s *sim) each(fn func(i int, f *gpsfilter.Fix)) *sim {
	for i := range s.fixes {
		fn(i, &s.fixes[i])
	}
	return s
}

// away moves a fix by metres to the north-west.
func away(f *gpsfilter.Fix, m float64) { *f = moved(*f, -m*0.8, m*0.6) }

func (s *sim) quirk(name string, right func(*Quirk, []gpsfilter.Estimate) error) Quirk {
	return Quirk{Stream: Stream{Name: name, Kind: "quirk", Fold: name, Fixes: s.fixes, Truth: s.truth}, Right: right}
}

// periodsS are the reporting periods of siblings.
var periodsS = [...]float64{1, 5, 15}

// Siblings are inputs of every kind of quirk, generated from a seed, at several
// periods.
func Siblings(seed uint64) []Quirk {
	var out []Quirk
	for _, p := range periodsS {
		k := kindsOf{p, 1000 * seed}
		out = append(out, k.velocity()...)
		out = append(out, k.repeats()...)
		out = append(out, k.accuracy()...)
		out = append(out, k.sources()...)
	}
	return out
}

// kindsOf generates the kinds of quirks at one period.
type kindsOf struct {
	periodS float64
	seed    uint64
}

// drive is a drive of its own for each n.
func (k kindsOf) drive(n uint64, fixes int, speedMPS, stopS float64) *sim {
	return drive(k.seed+n, fixes, k.periodS, speedMPS, stopS)
}

// rand is a generator of its own for each n.
func (k kindsOf) rand(n uint64) *rand.Rand { return rand.New(rand.NewPCG(k.seed+n, n)) }

func (k kindsOf) named(name string, s *sim, right func(*Quirk, []gpsfilter.Estimate) error) Quirk {
	return s.quirk(fmt.Sprintf("%s_%vs", name, k.periodS), right)
}

func rows(periodS float64) int { return max(60, int(400/periodS)) }

// velocity are velocities that contradict the positions.
func (k kindsOf) velocity() []Quirk {
	p, n := k.periodS, rows(k.periodS)
	// A wrong velocity may cost what the vehicle turns in a period, no more.
	right := near(20, 30, 0.85, 1)
	if p > 1 {
		right = near(20, 35, 0.8, 1)
	}
	named := func(name string, s *sim) Quirk { return k.named(name, s, right) }
	scaled := func(by float32) *sim {
		return k.drive(2, n, 14, 0).each(func(_ int, f *gpsfilter.Fix) { f.SpeedMPS *= by })
	}
	turned := func(by float32) *sim {
		return k.drive(3, n, 12, 0).each(func(_ int, f *gpsfilter.Fix) {
			f.HeadingDeg = float32(math.Mod(float64(f.HeadingDeg+by), 360))
		})
	}
	s := k.drive(1, n, 14, 0)
	zero := k.rand(5)
	stale := k.drive(6, n, 13, 0)
	for i := len(stale.fixes) - 1; i > 0; i-- {
		stale.fixes[i].HeadingDeg = stale.fixes[max(0, i-max(1, int(10/p)))].HeadingDeg
	}
	return []Quirk{
		named("heading_always_0", s.each(func(_ int, f *gpsfilter.Fix) { f.HeadingDeg = 0 })),
		named("compass_for_course", turned(70)), named("compass_backwards", turned(180)),
		named("speed_in_knots", scaled(1.944)), named("speed_in_kmh", scaled(3.6)), named("speed_in_mph", scaled(2.237)),
		named("speed_8_percent_high", scaled(1.08)), named("speed_5_percent_high", scaled(1.05)),
		named("speed_always_0", k.drive(4, n, 14, 0).each(func(_ int, f *gpsfilter.Fix) {
			f.SpeedMPS, f.Has = 0, f.Has&^gpsfilter.FieldHeading
		})),
		named("speed_0_in_40_percent", k.drive(5, n, 14, 0).each(func(_ int, f *gpsfilter.Fix) {
			if zero.Float64() < 0.4 {
				f.SpeedMPS, f.Has = 0, f.Has&^gpsfilter.FieldHeading
			}
		})),
		named("speed_0_with_heading_0", k.drive(5, n, 14, 0).each(func(_ int, f *gpsfilter.Fix) { f.SpeedMPS, f.HeadingDeg = 0, 0 })),
		named("course_10s_old", stale),
	}
}

// repeats are positions that repeat.
func (k kindsOf) repeats() []Quirk {
	p, n := k.periodS, rows(k.periodS)
	named := k.named
	kept := func(exact bool) *sim {
		s := k.drive(7, n, 13, 200)
		stop := int(200/p) - 1
		return s.each(func(i int, f *gpsfilter.Fix) {
			if i > stop {
				last := s.fixes[stop]
				f.SpeedMPS, f.HeadingDeg, f.Has = 13, last.HeadingDeg, everything
				if exact {
					f.LatDeg, f.LonDeg = last.LatDeg, last.LonDeg
				}
			}
		})
	}
	rounded := func(decimals float64, has gpsfilter.Fields) *sim {
		perDeg := math.Pow(10, decimals)
		return k.drive(8, n, 12, 0).each(func(_ int, f *gpsfilter.Fix) {
			f.LatDeg, f.LonDeg, f.Has = math.Round(f.LatDeg*perDeg)/perDeg, math.Round(f.LonDeg*perDeg)/perDeg, has
		})
	}
	restamped := k.drive(9, n, 11, 0)
	for i := range restamped.fixes {
		from := &restamped.fixes[i-i%4]
		restamped.fixes[i].LatDeg, restamped.fixes[i].LonDeg = from.LatDeg, from.LonDeg
		restamped.fixes[i].Has = 0
	}
	return []Quirk{
		named("parked_last_speed_kept_exact", kept(true), nearFix(300)),
		named("parked_last_speed_kept", kept(false), nearFix(100)),
		named("rounded_to_3_decimals", rounded(3, 0), near(20, 170, 0.85, 1)),
		named("rounded_to_3_decimals_with_velocity", rounded(3, everything), near(20, 170, 0.85, 1)),
		named("rounded_to_4_decimals", rounded(4, 0), near(20, 40, 0.85, 1)),
		named("rounded_to_4_decimals_with_velocity", rounded(4, everything), near(20, 40, 0.85, 1)),
		named("feed_restamps_each_fix_4_times", restamped, pathAndOff(1.3, 11*4*p+30)),
	}
}

// accuracy are accuracies that lie.
func (k kindsOf) accuracy() []Quirk {
	n := rows(k.periodS)
	named := k.named
	coarse := func(accuracy float32, offM float64, count int) *sim {
		return k.drive(10, n, 8, 0).each(func(i int, f *gpsfilter.Fix) {
			f.Has = gpsfilter.FieldAccuracy
			if i < count {
				away(f, offM)
				f.AccuracyM = accuracy
			}
		})
	}
	constant := func(a float32) *sim {
		return k.drive(11, n, 12, 0).each(func(_ int, f *gpsfilter.Fix) { f.AccuracyM = a })
	}
	mixed := k.rand(12)
	network := k.drive(12, n, 12, 0).each(func(i int, f *gpsfilter.Fix) {
		if i > 5 && mixed.Float64() < 0.2 {
			*f = moved(*f, 300*mixed.NormFloat64(), 300*mixed.NormFloat64())
			f.AccuracyM, f.Has = 400, gpsfilter.FieldAccuracy
		}
	})
	return []Quirk{
		named("accuracy_always_0", constant(0), near(20, 25, 0.85, 1)),
		named("accuracy_always_100", constant(100), near(20, 60, 0, 1)),
		named("accuracy_always_1", constant(1), near(20, 25, 0.7, 1)),
		named("first_fix_coarse_500", coarse(500, 450, 1), coarseStart(3, 50, 20, 50)),
		named("first_fix_coarse_2000", coarse(2000, 1800, 1), coarseStart(3, 50, 20, 50)),
		named("two_fixes_coarse_1000", coarse(1000, 900, 2), coarseStart(3, 50, 20, 50)),
		named("first_fix_coarse_claims_5", coarse(5, 1500, 1), coarseStart(4, 50, 20, 50)),
		named("network_fixes_among_gps", network, near(20, 60, 0.85, 0.9)),
	}
}

// sources are two sources in turn.
func (k kindsOf) sources() []Quirk {
	p, n := k.periodS, rows(k.periodS)
	named := k.named
	alternating := func(every, phase int, has gpsfilter.Fields) *sim {
		s := k.drive(13, n, 12, 0)
		old := s.fixes[0]
		away(&old, 7000)
		return s.each(func(i int, f *gpsfilter.Fix) {
			f.Has &= has
			if i%every == phase {
				f.LatDeg, f.LonDeg, f.AccuracyM, f.Has = old.LatDeg, old.LonDeg, 10, gpsfilter.FieldAccuracy&has
			}
		})
	}
	bounce := func(accuracy float32) *sim {
		s := k.drive(14, n, 0, 0)
		tower := s.fixes[0]
		away(&tower, 2500)
		return s.each(func(i int, f *gpsfilter.Fix) {
			f.Has = gpsfilter.FieldAccuracy
			f.AccuracyM = 12
			if i%10 >= 8 && i > 10 {
				f.LatDeg, f.LonDeg, f.AccuracyM = tower.LatDeg, tower.LonDeg, accuracy
			}
		})
	}
	s := k.drive(15, n, 13, 0)
	drifting := s.each(func(i int, f *gpsfilter.Fix) {
		if since := i % 60; i > 60 && since < 30 && since > 0 { // dead reckoning: off by 4 m more each second
			*f = moved(*f, 4*p*float64(since), 0)
			f.Has = gpsfilter.FieldAccuracy
		}
	})
	right := near(20, 40+5*p, 0, 0.9)
	return []Quirk{
		named("old_position_alternates", alternating(2, 1, everything), right),
		named("old_position_first_alternates", alternating(2, 0, everything), right),
		named("old_position_alternates_bare", alternating(2, 1, gpsfilter.FieldAccuracy), near(20, 25+5*p, 0, 0.8)),
		named("old_position_every_third", alternating(3, 1, everything), right),
		named("old_position_first_every_third", alternating(3, 0, 0), right),
		named("parked_cell_bounce_1500", bounce(1500), parked(200)),
		named("parked_cell_bounce_800", bounce(800), parked(200)),
		named("dead_reckoning_comes_back", drifting, backWithin(3, 30)),
	}
}

// backWithin asks that some fixes after an error of the fixes has ended the
// answer be near the truth again. Fixes with a speed are right.
func backWithin(fixes int, withinM float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		off, good := q.offsets(live), 0
		for i, f := range q.Fixes {
			good++
			if f.Has&gpsfilter.FieldSpeed == 0 {
				good = 0
			}
			if i > 10 && good >= fixes && off[i] > withinM {
				return fmt.Errorf("row %d is %.0f m off, %d right fixes after the error", i, off[i], good)
			}
		}
		return nil
	}
}
