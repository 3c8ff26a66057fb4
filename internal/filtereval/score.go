package filtereval

import (
	"math"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

const (
	// movingMPS is the true speed above which a heading is judged.
	movingMPS = 3
	// ellipse95 is the 95 % quantile of a chi-squared with 2 degrees.
	ellipse95 = 5.991
	// settleMS is the time after a stream's first fix that the largest error
	// and the settled path leave out: before it there is nothing by which to
	// know a bad first fix from a good one.
	settleMS = 10_000
)

// Score is what one filter did on one run of one stream.
type Score struct {
	// Rows counts rows with truth, P50M and P95M are quantiles of the live
	// position's error in them, LargestM the largest after the first 10 s.
	Rows                 int
	P50M, P95M, LargestM float64
	// PathM and TruthM are the lengths of the display track and of the truth;
	// SettledPathM and SettledTruthM leave out the first 10 s.
	PathM, TruthM, SettledPathM, SettledTruthM float64
	// StandingS is how long the truth stood, DriftM the display path meanwhile.
	StandingS, DriftM float64
	// HeadingErrors in degrees, of rows whose truth moves; Moving counts those
	// rows, with a heading or without.
	HeadingErrors []float64
	Moving        int
	// Inside counts rows with the truth inside the 95 % ellipse, Accepted those
	// with the verdict accepted or standstill.
	Inside, Accepted int
}

// scoreRun judges the estimates of one run.
func scoreRun(fr frame, ref *reference, fixes []gpsfilter.Fix, live []gpsfilter.Estimate) *Score {
	s := &Score{}
	errs := make([]float64, 0, len(fixes))
	for i, fix := range fixes {
		if !ref.known[i] {
			continue
		}
		e := &live[i]
		d := fr.vec(e.LatDeg, e.LonDeg).sub(ref.at[i])
		errs = append(errs, d.norm())
		settled := fix.TimeMS-fixes[0].TimeMS > settleMS
		if settled {
			s.LargestM = max(s.LargestM, d.norm())
		}
		if insideEllipse(d, e) {
			s.Inside++
		}
		if e.Verdict == gpsfilter.VerdictAccepted || e.Verdict == gpsfilter.VerdictStandstill {
			s.Accepted++
		}
		if v := ref.velocity[i]; v.norm() > movingMPS {
			s.Moving++
			if e.HasHeading {
				s.HeadingErrors = append(s.HeadingErrors, angleBetween(e.HeadingDeg, courseDeg(v)))
			}
		}
		if i > 0 && ref.known[i-1] {
			s.addPath(fr, ref, i, live, settled, float64(fix.TimeMS-fixes[i-1].TimeMS)/1000)
		}
	}
	s.Rows = len(errs)
	sort.Float64s(errs)
	s.P50M, s.P95M = sortedQuantile(errs, 0.50), sortedQuantile(errs, 0.95)
	return s
}

func insideEllipse(d vec, e *gpsfilter.Estimate) bool {
	det := e.VarEastM2*e.VarNorthM2 - e.CovEastNorthM2*e.CovEastNorthM2
	return (d.e*d.e*e.VarNorthM2-2*d.e*d.n*e.CovEastNorthM2+d.n*d.n*e.VarEastM2)/det <= ellipse95
}

func (s *Score) addPath(fr frame, ref *reference, i int, live []gpsfilter.Estimate, settled bool, dtS float64) {
	a, b := &live[i-1], &live[i]
	step := fr.vec(b.DisplayLatDeg, b.DisplayLonDeg).sub(fr.vec(a.DisplayLatDeg, a.DisplayLonDeg)).norm()
	trueStep := ref.at[i].sub(ref.at[i-1]).norm()
	s.PathM += step
	s.TruthM += trueStep
	if !settled {
		return
	}
	s.SettledPathM += step
	s.SettledTruthM += trueStep
	if ref.standing[i] && ref.standing[i-1] {
		s.DriftM += step
		s.StandingS += dtS
	}
}

// quantile interpolates between order statistics; NaN of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := append([]float64(nil), values...)
	sort.Float64s(v)
	return sortedQuantile(v, q)
}

func sortedQuantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

func geometricMean(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}
