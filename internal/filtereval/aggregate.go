package filtereval

import (
	"math"
	"sort"
)

func p50raw(r *judged) float64  { return r.live.P50M / r.raw.P50M }
func p95raw(r *judged) float64  { return r.live.P95M / r.raw.P95M }
func p50base(r *judged) float64 { return r.live.P50M / r.base.P50M }
func p95base(r *judged) float64 { return r.live.P95M / r.base.P95M }
func inside(r *judged) float64  { return float64(r.live.Inside) / float64(r.live.Rows) }
func accepted(r *judged) float64 {
	return float64(r.live.Accepted) / float64(r.live.Rows)
}
func path(r *judged) float64    { return r.live.PathM / r.live.TruthM }
func settled(r *judged) float64 { return r.live.SettledPathM / r.live.SettledTruthM }

// kindFigure is one kind's figure.
type kindFigure struct {
	kind  string
	value float64
}

// byKind is each kind's geometric mean of its runs' figures, by kind.
func byKind(runs []judged, of func(*judged) float64) []kindFigure {
	values := map[string][]float64{}
	for i := range runs {
		if v := of(&runs[i]); v > 0 && !math.IsInf(v, 0) {
			values[runs[i].stream.Kind] = append(values[runs[i].stream.Kind], v)
		}
	}
	out := make([]kindFigure, 0, len(values))
	for kind, v := range values {
		out = append(out, kindFigure{kind, geometricMean(v)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].kind < out[j].kind })
	return out
}

// total is the geometric mean of the kinds' figures.
func total(runs []judged, of func(*judged) float64) float64 {
	var v []float64
	for _, k := range byKind(runs, of) {
		v = append(v, k.value)
	}
	return geometricMean(v)
}

// worst and least are the largest and the smallest of the kinds' figures.
func worst(figures []kindFigure) kindFigure {
	out := kindFigure{value: math.Inf(-1)}
	for _, k := range figures {
		if k.value > out.value {
			out = k
		}
	}
	return out
}

func least(figures []kindFigure) kindFigure {
	out := kindFigure{value: math.Inf(1)}
	for _, k := range figures {
		if k.value < out.value {
			out = k
		}
	}
	return out
}

// geometric is the geometric mean over runs, whatever their kinds.
func geometric(runs []judged, of func(*judged) float64) float64 {
	var v []float64
	for i := range runs {
		if x := of(&runs[i]); x > 0 && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	return geometricMean(v)
}

// share is the part of the runs that hold.
func share(runs []judged, hold func(*judged) bool) float64 {
	n := 0
	for i := range runs {
		if hold(&runs[i]) {
			n++
		}
	}
	return float64(n) / float64(len(runs))
}

func withVelocity(runs []judged) []judged {
	var out []judged
	for _, r := range runs {
		if r.velocity {
			out = append(out, r)
		}
	}
	return out
}

// largest returns the largest errors of the filter and of the baseline.
func largest(runs []judged) (live, base float64) {
	for _, r := range runs {
		live, base = max(live, r.live.LargestM), max(base, r.base.LargestM)
	}
	return live, base
}

// beyond is the share of runs whose largest error is above both limits.
func beyond(runs []judged, limitM float64) float64 {
	return share(runs, func(r *judged) bool { return r.live.LargestM > max(limitM, r.base.LargestM) })
}

// driftByKind is the kinds' display path at standstill in metres per minute.
func driftByKind(runs []judged) []kindFigure {
	type sum struct{ m, s float64 }
	sums := map[string]*sum{}
	var order []string
	for _, r := range runs {
		s := sums[r.stream.Kind]
		if s == nil {
			s = &sum{}
			sums[r.stream.Kind] = s
			order = append(order, r.stream.Kind)
		}
		s.m, s.s = s.m+r.live.DriftM, s.s+r.live.StandingS
	}
	sort.Strings(order)
	var out []kindFigure
	for _, k := range order {
		if s := sums[k]; s.s > 0 {
			out = append(out, kindFigure{k, s.m / s.s * 60})
		}
	}
	return out
}

// drift is the mean of the kinds' display path at standstill in metres per
// minute.
func drift(runs []judged) float64 {
	var v []float64
	for _, k := range driftByKind(runs) {
		v = append(v, k.value)
	}
	return mean(v)
}

// headings returns quantiles of the heading's error over all moving rows, the
// kinds' mean of the same, and the share of moving rows with a heading.
func headings(runs []judged) (p50, p95, kinds50, kinds95, have float64) {
	var all []float64
	byKind := map[string][]float64{}
	moving := 0
	for _, r := range runs {
		all = append(all, r.live.HeadingErrors...)
		byKind[r.stream.Kind] = append(byKind[r.stream.Kind], r.live.HeadingErrors...)
		moving += r.live.Moving
	}
	var m50, m95 []float64
	for _, v := range byKind {
		if len(v) > 0 {
			m50, m95 = append(m50, quantile(v, .5)), append(m95, quantile(v, .95))
		}
	}
	sort.Float64s(m50)
	sort.Float64s(m95)
	return quantile(all, .5), quantile(all, .95), mean(m50), mean(m95), float64(len(all)) / float64(moving)
}

func mean(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}
