package filtereval

// ratios is the geometric mean over the runs that have a positive value.
func ratios(runs []run, of func(r *run) float64) float64 {
	var v []float64
	for i := range runs {
		if x := of(&runs[i]); x > 0 {
			v = append(v, x)
		}
	}
	return geometricMean(v)
}

func of(runs []run, a, b func(*run) float64) []float64 {
	return []float64{ratios(runs, a), ratios(runs, b)}
}

func kindOf(runs []run, kind string) []run {
	var out []run
	for _, r := range runs {
		if r.kind == kind {
			out = append(out, r)
		}
	}
	return out
}

func without(runs []run, kind string) []run {
	var out []run
	for _, r := range runs {
		if r.kind != kind {
			out = append(out, r)
		}
	}
	return out
}

func p50raw(r *run) float64  { return r.starling.P50() / r.raw.P50() }
func p95raw(r *run) float64  { return r.starling.P95() / r.raw.P95() }
func p50base(r *run) float64 { return r.starling.P50() / r.base.P50() }
func p95base(r *run) float64 { return r.starling.P95() / r.base.P95() }
func length(r *run) float64  { return r.starling.LiveM / r.starling.TruthM }

func settledLength(r *run) float64 { return r.starling.SettledLiveM / r.starling.SettledTruthM }

type named struct {
	name string
	runs []run
}

// byName groups runs of one name that follow each other.
func byName(runs []run) []named {
	var out []named
	for _, r := range runs {
		if len(out) == 0 || out[len(out)-1].name != r.name {
			out = append(out, named{name: r.name})
		}
		out[len(out)-1].runs = append(out[len(out)-1].runs, r)
	}
	return out
}

func largest(runs []run) float64 {
	m := 0.0
	for _, r := range runs {
		m = max(m, r.starling.LargestM)
	}
	return m
}

func medianLargest(runs []run) float64 {
	var v []float64
	for _, r := range runs {
		v = append(v, r.starling.LargestM)
	}
	return quantile(v, 0.5)
}

func pooledLength(runs []run) float64 {
	var a, b float64
	for _, r := range runs {
		a, b = a+r.starling.LiveM, b+r.starling.TruthM
	}
	return a / b
}

// drift is in metres per minute.
func drift(runs []run) float64 {
	var m, s float64
	for _, r := range runs {
		m, s = m+r.starling.DriftM, s+r.starling.StandingS
	}
	return m / s * 60
}

func headings(runs []run) (errs []float64, share float64) {
	moving := 0
	for _, r := range runs {
		errs = append(errs, r.starling.HeadingErrors...)
		moving += r.starling.Moving
	}
	return errs, float64(len(errs)) / float64(moving)
}

func inside(runs []run) float64 {
	in, n := 0, 0
	for _, r := range runs {
		in, n = in+r.starling.Inside, n+len(r.starling.Errors)
	}
	return float64(in) / float64(n)
}

// percent is the share of one count in another over all runs.
func percent(runs []run, part, whole func(*Score) int) float64 {
	p, w := 0, 0
	for _, r := range runs {
		p, w = p+part(r.starling), w+whole(r.starling)
	}
	return 100 * float64(p) / float64(w)
}

func jumps(runs []run) float64 {
	return percent(runs, func(s *Score) int { return s.JumpsLeft }, func(s *Score) int { return s.Jumps })
}

func settledJumps(runs []run) float64 {
	return percent(runs, func(s *Score) int { return s.SettledJumpsLeft }, func(s *Score) int { return s.Jumps })
}

func good(s *Score) int { return s.Good }

func displaced(runs []run) float64 {
	return percent(runs, func(s *Score) int { return s.Displaced }, good)
}

func refused(runs []run) float64 {
	return percent(runs, func(s *Score) int { return s.Refused }, good)
}

func spoilt(runs []run) float64 {
	return percent(runs, func(s *Score) int { return s.Spoilt }, good)
}
