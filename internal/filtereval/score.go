package filtereval

import (
	"math"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

const (
	// movingMPS is the true speed above which a heading is judged.
	movingMPS = 3
	// stillOffM is how far off an injected jump counts as not caught.
	stillOffM = 100
	// ellipse95 is the 95 % quantile of a chi-squared with 2 degrees.
	ellipse95 = 5.991
	// settleMS is the time after a stream's first fix that the largest error
	// leaves out: before it there is nothing to tell a bad first fix from a
	// good one.
	settleMS = 10_000
	// goodAccuracyM stands for the accuracy of a fix without one.
	goodAccuracyM = 10
)

// Score is what one filter did on one run of one stream.
type Score struct {
	// Errors are the live position's, in metres, of rows with truth.
	Errors []float64
	// LargestM is the largest error after the first 10 s.
	LargestM float64
	// LiveM and TruthM are the lengths of the two polylines, SettledLiveM and
	// SettledTruthM without the first 10 s.
	LiveM, TruthM, SettledLiveM, SettledTruthM float64
	// StandingS is how long the truth stood, DriftM the live path meanwhile.
	StandingS, DriftM float64
	// HeadingErrors in degrees, of rows with truth that moves; Moving counts
	// those rows, with a heading or without.
	HeadingErrors []float64
	Moving        int
	// Inside counts rows with the truth inside the 95 % ellipse.
	Inside int
	// Jumps counts injected jumps over 100 m, JumpsLeft those that are still
	// as far off after the filter, SettledJumpsLeft those of them after the
	// first 10 s.
	Jumps, JumpsLeft, SettledJumpsLeft int
	// Good counts untouched fixes whose true error is within their accuracy,
	// Displaced those that the filter moved by more than that, Refused those
	// of them that it called outliers, Spoilt those whose live position is
	// further than that from the truth.
	Good, Displaced, Refused, Spoilt int
}

// P50 and P95 are quantiles of the error in metres.
func (s *Score) P50() float64 { return quantile(s.Errors, 0.50) }

// P95 is the 95 % quantile of the error in metres.
func (s *Score) P95() float64 { return quantile(s.Errors, 0.95) }

// scoreRun judges the estimates of one run. tags may be nil.
func scoreRun(fr frame, ref *reference, fixes []gpsfilter.Fix, tags []Tag, live []gpsfilter.Estimate) *Score {
	s := &Score{Errors: make([]float64, 0, len(fixes))}
	for i, fix := range fixes {
		if !ref.known[i] {
			continue
		}
		e := live[i]
		p := fr.vec(e.LatDeg, e.LonDeg)
		d := p.sub(ref.at[i])
		err := d.norm()
		s.Errors = append(s.Errors, err)
		settled := fix.TimeMS-fixes[0].TimeMS > settleMS
		if settled {
			s.LargestM = max(s.LargestM, err)
		}
		det := e.VarEastM2*e.VarNorthM2 - e.CovEastNorthM2*e.CovEastNorthM2
		if (d.e*d.e*e.VarNorthM2-2*d.e*d.n*e.CovEastNorthM2+d.n*d.n*e.VarEastM2)/det <= ellipse95 {
			s.Inside++
		}
		s.scoreFix(fr.vec(fix.LatDeg, fix.LonDeg), ref.at[i], p, fix, tagOf(tags, i), e.Verdict, settled)
		if v := ref.velocity[i]; v.norm() > movingMPS {
			s.Moving++
			if e.HasHeading {
				s.HeadingErrors = append(s.HeadingErrors, angleBetween(e.HeadingDeg, courseDeg(v)))
			}
		}
		if i > 0 && ref.known[i-1] {
			step := p.sub(fr.vec(live[i-1].LatDeg, live[i-1].LonDeg)).norm()
			trueStep := ref.at[i].sub(ref.at[i-1]).norm()
			s.LiveM += step
			s.TruthM += trueStep
			if settled {
				s.SettledLiveM += step
				s.SettledTruthM += trueStep
			}
			if settled && ref.standing[i] && ref.standing[i-1] {
				s.DriftM += step
				s.StandingS += float64(fix.TimeMS-fixes[i-1].TimeMS) / 1000
			}
		}
	}
	return s
}

// scoreFix judges what became of one fix, received at z where the truth is at
// truth and the live position at p.
func (s *Score) scoreFix(z, truth, p vec, fix gpsfilter.Fix, tag Tag, v gpsfilter.Verdict, settled bool) {
	raw, err := z.sub(truth).norm(), p.sub(truth).norm()
	switch tag {
	case TagJump:
		if raw > stillOffM {
			s.Jumps++
			if err > stillOffM {
				s.JumpsLeft++
				if settled {
					s.SettledJumpsLeft++
				}
			}
		}
	case TagGood:
		accuracy := float64(goodAccuracyM)
		if fix.Has&gpsfilter.FieldAccuracy != 0 {
			accuracy = max(accuracy, float64(fix.AccuracyM))
		}
		if raw > accuracy {
			return
		}
		s.Good++
		if err > accuracy {
			s.Spoilt++
		}
		if p.sub(z).norm() > accuracy {
			s.Displaced++
			if v == gpsfilter.VerdictOutlier {
				s.Refused++
			}
		}
	}
}

func tagOf(tags []Tag, i int) Tag {
	if tags == nil {
		return TagGood
	}
	return tags[i]
}

// quantile interpolates between order statistics; NaN of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := append([]float64(nil), values...)
	sort.Float64s(v)
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
