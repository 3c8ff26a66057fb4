package filtereval

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

const (
	// foldCount is the number of parts into which folds are dealt.
	foldCount = 8
	// leastGain is the fall of the cost below which a constant is left where it
	// is: less is chance.
	leastGain = 0.003
)

// part returns to which part of the cross-validation a stream belongs. Streams of
// one city, day and device belong to the same.
func part(s *Stream) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.Fold))
	return int(h.Sum32()>>8) % foldCount
}

// fitRuns are the runs that constants are fitted by: faulted ones have seeds of
// their own, which no report uses.
type fitRuns struct {
	clean, slow, faulty []*run
}

// newFitRuns builds the runs of the streams that keep holds for; of a kind with
// many streams, every few of them do.
func newFitRuns(streams []Stream, keep func(*Stream) bool) *fitRuns {
	const most = 12
	byKind := map[string]int{}
	for i := range streams {
		if keep(&streams[i]) {
			byKind[streams[i].Kind]++
		}
	}
	f, seen := &fitRuns{}, map[string]int{}
	for i := range streams {
		s := &streams[i]
		if !keep(s) {
			continue
		}
		n := seen[s.Kind]
		seen[s.Kind]++
		if every := (byKind[s.Kind] + most - 1) / most; n%every != 0 {
			continue
		}
		at1 := Every(s.Fixes, 1000)
		add := func(to *[]*run, fixes []gpsfilter.Fix) {
			if r := newRun(s, fixes); r.raw.Rows >= minRows {
				*to = append(*to, r)
			}
		}
		add(&f.clean, at1)
		for _, period := range [...]int64{5000, 15000, 60_000} {
			add(&f.slow, Every(s.Fixes, period))
		}
		for n := range uint64(2) {
			fixes, _ := Inject(at1, AllFaults(), 5_000_000+n+2*uint64(i))
			add(&f.faulty, fixes)
		}
	}
	return f
}

// cost is the scoring rule that constants are fitted by: the mean over kinds of
// the logarithms of the clean ratios (p95 one and a half times), part of those of the faulted and slow
// ones, and a fine for every kind and stream that is harmed.
func (f *fitRuns) cost(flt *gpsfilter.Filter) float64 {
	r := Starling(flt)
	clean, slow, faulty := judge(f.clean, r), judge(f.slow, r), judge(f.faulty, r)
	c := math.Log(total(clean, p50raw)) + 1.5*math.Log(total(clean, p95raw))
	c += 0.5 * (math.Log(total(faulty, p50base)) + math.Log(total(faulty, p95base)))
	c += 0.3 * math.Log(total(slow, p50raw))
	for _, of := range [...]func(*judged) float64{p50raw, p95raw} {
		for _, runs := range [...][]judged{clean, slow} {
			figs := byKind(runs, of)
			for _, k := range figs {
				c += 3 / float64(len(figs)) * max(0, math.Log(k.value))
			}
		}
	}
	c += 0.3*share(clean, func(r *judged) bool { return p50raw(r) > 1.05 }) + 0.1*share(clean, func(r *judged) bool { return p50raw(r) > 1.01 })
	c += 1.5 * share(faulty, func(r *judged) bool { return r.live.LargestM > max(150, r.base.LargestM) })
	return c + f.displayCost(clean, faulty) + f.coverCost(clean)
}

func (f *fitRuns) displayCost(clean, faulty []judged) float64 {
	c := 2*math.Abs(math.Log(total(clean, path))) + math.Abs(math.Log(total(faulty, settled)))
	return c + 0.01*drift(clean)
}

// coverCost is the distance of the kinds' share of truth inside the ellipse
// from 93 %, the more beyond 84 and 98 %, and part of the share of streams out of
// range.
func (f *fitRuns) coverCost(clean []judged) float64 {
	c := 0.0
	figs := byKind(clean, inside)
	for _, k := range figs {
		c += (math.Abs(k.value-0.93) + 10*max(0, 0.84-k.value) + 10*max(0, k.value-0.98)) / float64(len(figs))
	}
	return c + 0.2*share(clean, func(r *judged) bool { return inside(r) < 0.85 || inside(r) > 0.99 })
}

// fit moves the named constants of f, one after the other, as long as the cost
// falls. It is a pattern search: no gradient, no random number.
func (f *fitRuns) fit(flt *gpsfilter.Filter, names []string, sweeps int, progress io.Writer) (*gpsfilter.Filter, error) {
	best := f.cost(flt)
	step := map[string]float64{}
	for _, n := range names {
		step[n] = 1.5
	}
	value := values(flt)
	for sweep := range sweeps {
		before := best
		for _, n := range names {
			moved := false
			for _, k := range [...]float64{step[n], 1 / step[n]} {
				g, err := flt.With(n, value[n]*k)
				if err != nil {
					return nil, err
				}
				if c := f.cost(g); c < best-leastGain {
					best, flt, moved = c, g, true
					value[n] *= k
					break
				}
			}
			if !moved {
				step[n] = math.Sqrt(step[n])
			}
		}
		_, _ = fmt.Fprintf(progress, "sweep %d: cost %.4f\n", sweep, best)
		if before-best < leastGain {
			break
		}
	}
	return flt, nil
}

func values(f *gpsfilter.Filter) map[string]float64 {
	out := map[string]float64{}
	for _, c := range f.Constants() {
		out[c.Name] = c.Value
	}
	return out
}

// fitted are the names of the constants that are fitted.
func fitted(f *gpsfilter.Filter) []string {
	var out []string
	for _, c := range f.Constants() {
		if c.Source == "fitted" {
			out = append(out, c.Name)
		}
	}
	return out
}

// coarse returns the nearest of 1 and 3 times a power of ten.
func coarse(v float64) float64 {
	half := math.Round(2 * math.Log10(v))
	power := math.Pow(10, math.Floor(half/2))
	if math.Mod(half, 2) != 0 {
		return 3 * power
	}
	return power
}

// Fit fits the constants to all streams and prints them.
func Fit(w io.Writer, streams []Stream, f *gpsfilter.Filter, sweeps int, only []string) (*gpsfilter.Filter, error) {
	runs := newFitRuns(streams, func(*Stream) bool { return true })
	if len(only) == 0 {
		only = fitted(f)
	}
	g, err := runs.fit(f, only, sweeps, w)
	if err != nil {
		return nil, err
	}
	for _, c := range g.Constants() {
		if c.Source == "fitted" {
			_, _ = fmt.Fprintf(w, "%-20s %.4g\n", c.Name, c.Value)
		}
	}
	return g, nil
}

// Gap fits the constants on all folds and on all but a part of them in turn,
// each time from the nearest of 1 and 3 times a power of ten, and prints the
// figures in-fold and out-of-fold.
func Gap(w io.Writer, streams []Stream, f *gpsfilter.Filter, sweeps int) error {
	names := fitted(f)
	for n, v := range values(f) {
		for _, name := range names {
			if n == name {
				g, err := f.With(n, coarse(v))
				if err != nil {
					return err
				}
				f = g
			}
		}
	}
	all, err := newFitRuns(streams, func(*Stream) bool { return true }).fit(f, names, sweeps, w)
	if err != nil {
		return err
	}
	var clean []*run
	for i := range streams {
		clean = append(clean, newRun(&streams[i], Every(streams[i].Fixes, 1000)))
	}
	in := judge(clean, Starling(all))
	out := make([]judged, 0, len(clean))
	for p := range foldCount {
		g, err := newFitRuns(streams, func(s *Stream) bool { return part(s) != p }).fit(f, names, sweeps, w)
		if err != nil {
			return err
		}
		for _, r := range clean {
			if part(r.stream) == p {
				out = append(out, judge([]*run{r}, Starling(g))...)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].stream.Name < out[j].stream.Name })
	i50, i95, o50, o95 := total(in, p50raw), total(in, p95raw), total(out, p50raw), total(out, p95raw)
	_, _ = fmt.Fprintf(w, "in-fold p50 %.3f p95 %.3f, out-of-fold p50 %.3f p95 %.3f: gap %+.1f %% and %+.1f %% (bar 3 %%)\n",
		i50, i95, o50, o95, 100*(o50/i50-1), 100*(o95/i95-1))
	return nil
}
