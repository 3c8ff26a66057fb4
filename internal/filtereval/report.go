package filtereval

import (
	"fmt"
	"io"
	"math"

	"github.com/starling-fleet/starling/gpsfilter"
)

// Seeds is the number of faulted runs of each stream.
const Seeds = 8

// Kinds are the kinds of streams that are known.
var Kinds = []string{"comma2k19", "gsdc_chipset", "gsdc_spp", "gsdc_sppdoppler", "ppc", "smartloc"}

// drive is a stream with everything that its runs share.
type drive struct {
	*Stream
	frame frame
	truth truthPath
}

// run is one list of fixes with the scores of the filters.
type run struct {
	kind                string
	name                string
	raw, base, starling *Score
}

func (d *drive) score(fixes []gpsfilter.Fix, tags []Tag, f Runner) run {
	ref := newReference(d.truth, fixes)
	return run{
		kind: d.Kind, name: d.Name,
		raw:      scoreRun(d.frame, ref, fixes, tags, Raw(fixes)),
		base:     scoreRun(d.frame, ref, fixes, tags, Baseline(fixes)),
		starling: scoreRun(d.frame, ref, fixes, tags, f(fixes)),
	}
}

// Result holds the runs that the table is made of.
type Result struct {
	clean, clean5, native []run
	faulty, faulty5       []run
}

// Evaluate runs f over all streams: at 1 Hz, at one fix in 5 s and at the
// device's own rate, clean, and the first two with Seeds lists of faults each.
func Evaluate(streams []Stream, f Runner) *Result {
	res := &Result{}
	for i := range streams {
		s := &streams[i]
		fr := newFrame(s)
		d := &drive{s, fr, newTruthPath(s, fr)}
		at1, at5 := Every(s.Fixes, 1000), Every(s.Fixes, 5000)
		res.clean = append(res.clean, d.score(at1, nil, f))
		res.clean5 = append(res.clean5, d.score(at5, nil, f))
		res.native = append(res.native, d.score(s.Fixes, nil, f))
		for n := range uint64(Seeds) {
			seed := n + Seeds*uint64(i)
			fixes, tags := Inject(at1, AllFaults(), seed)
			res.faulty = append(res.faulty, d.score(fixes, tags, f))
			fixes, tags = Inject(at5, AllFaults(), seed)
			res.faulty5 = append(res.faulty5, d.score(fixes, tags, f))
		}
	}
	return res
}

// Row is one line of the table.
type Row struct {
	// What says what was measured, Bar and Moonshot what is wanted.
	What, Bar, Moonshot string
	// Values are what was reached, NaN where there was nothing to measure.
	Values []float64
	// Guard, where there is one, holds what the values must not exceed: a
	// little more than was reached when it was set.
	Guard []float64
}

// Table returns the table that the filter is judged by.
func (res *Result) Table() []Row {
	rest := func(runs []run) []run { return without(runs, "gsdc_sppdoppler") }
	heads, share := headings(res.clean)
	rows := []Row{
		{"clean / raw, p50 p95", "0.93 0.92", "0.89 0.83", []float64{ratios(res.clean, p50raw), ratios(res.clean, p95raw)}, []float64{0.92, 0.87}},
		{"  the same without sppdoppler", "", "", []float64{ratios(rest(res.clean), p50raw), ratios(rest(res.clean), p95raw)}, nil},
		{"faulted / gated CV, p50 p95", "0.92 0.80", "0.88 0.72", []float64{ratios(res.faulty, p50base), ratios(res.faulty, p95base)}, []float64{0.84, 0.43}},
		{"single point with Doppler / raw, p50 p95", "0.48 0.34", "0.42 0.30", of(kindOf(res.clean, "gsdc_sppdoppler"), p50raw, p95raw), []float64{0.46, 0.40}},
		{"chipset / raw, p50 p95", "1.02 1.02", "1.00 1.00", of(kindOf(res.clean, "gsdc_chipset"), p50raw, p95raw), []float64{0.82, 0.93}},
		{"largest error under faults, m", "150", "100", []float64{largest(res.faulty)}, []float64{600}},
		{"  its median over the runs, m", "", "", []float64{medianLargest(res.faulty)}, nil},
		{"path length / truth, clean, faulted", "1.04 1.07", "1.02 1.04", []float64{ratios(res.clean, length), ratios(res.faulty, length)}, []float64{1.05, 1.32}},
		{"  without the first 10 s", "", "", []float64{ratios(res.clean, settledLength), ratios(res.faulty, settledLength)}, []float64{1.05, 1.07}},
		{"  all drives together", "", "", []float64{pooledLength(res.clean), pooledLength(res.faulty)}, nil},
		{"drift at standstill, m/min, clean, faulted", "15", "5", []float64{drift(res.clean), drift(res.faulty)}, []float64{14, 21}},
		{"heading error moving, degrees, p50 p95", "0.4 14", "0.3 8", []float64{quantile(heads, .5), quantile(heads, .95)}, []float64{0.3, 14}},
		{"  share of moving rows with a heading", "", "", []float64{share}, nil},
		{"truth inside the 95 % ellipse, clean, faulted", "0.90-0.98", "0.93-0.97", []float64{inside(res.clean), inside(res.faulty)}, []float64{0.98, 0.98}},
	}
	for _, k := range Kinds {
		rows = append(rows, Row{What: "  " + k, Moonshot: "each kind", Values: []float64{inside(kindOf(res.clean, k)), inside(kindOf(res.faulty, k))}})
	}
	return append(rows,
		Row{"jumps still > 100 m off, 1 Hz, 5 s, %", "0.3 3", "0.1 1", []float64{jumps(res.faulty), jumps(res.faulty5)}, []float64{1, 5}},
		Row{"  without the first 10 s", "", "", []float64{settledJumps(res.faulty), settledJumps(res.faulty5)}, nil},
		Row{"good fixes displaced, 1 Hz, 5 s, %", "0.03 0.2", "0.01 0.1", []float64{displaced(res.faulty), displaced(res.faulty5)}, []float64{1.7, 0.7}},
		Row{"  of these called outliers", "", "", []float64{refused(res.faulty), refused(res.faulty5)}, []float64{0.05, 0.4}},
		Row{"  live further than that from the truth", "", "", []float64{spoilt(res.faulty), spoilt(res.faulty5)}, nil},
		Row{"  displaced on chipset streams", "", "", []float64{displaced(kindOf(res.faulty, "gsdc_chipset")), displaced(kindOf(res.faulty5, "gsdc_chipset"))}, []float64{0.08, 0.3}},
		Row{"own rate / raw, p50 p95", "", "", of(res.native, p50raw, p95raw), nil},
		Row{"one fix in 5 s / raw, p50 p95", "", "", of(res.clean5, p50raw, p95raw), nil},
	)
}

// Print writes the table, and with verbose each stream's figures.
func (res *Result) Print(w io.Writer, verbose bool) {
	_, _ = fmt.Fprintf(w, "%-50s %-11s %-11s %s\n", "what", "bar", "moonshot", "reached")
	for _, r := range res.Table() {
		_, _ = fmt.Fprintf(w, "%-50s %-11s %-11s", r.What, r.Bar, r.Moonshot)
		for _, v := range r.Values {
			switch {
			case math.IsNaN(v):
				_, _ = fmt.Fprintf(w, "     -")
			case v >= 100:
				_, _ = fmt.Fprintf(w, " %5.0f", v)
			default:
				_, _ = fmt.Fprintf(w, " %.3f", v)
			}
		}
		_, _ = fmt.Fprintln(w)
	}
	if !verbose {
		return
	}
	for _, part := range []struct {
		name string
		runs []run
	}{{"clean 1 Hz", res.clean}, {"clean, own rate", res.native}, {"clean 5 s", res.clean5}, {"faulted 1 Hz", res.faulty}, {"faulted 5 s", res.faulty5}} {
		_, _ = fmt.Fprintf(w, "\n%s\n", part.name)
		for _, r := range byName(part.runs) {
			printStream(w, r)
		}
	}
}

func printStream(w io.Writer, r named) {
	h, share := headings(r.runs)
	metres := func(of func(*run) float64) float64 { return ratios(r.runs, of) }
	_, _ = fmt.Fprintf(w, "%-47s raw %6.2f %6.2f live %6.2f %6.2f /raw %.3f %.3f /gated %.3f %.3f largest %6.1f length %.3f drift %5.1f heading %5.2f %6.2f (%.2f) in %.3f jumps %.3f displaced %.3f\n", r.name,
		metres(func(r *run) float64 { return r.raw.P50() }), metres(func(r *run) float64 { return r.raw.P95() }),
		metres(func(r *run) float64 { return r.starling.P50() }), metres(func(r *run) float64 { return r.starling.P95() }),
		metres(p50raw), metres(p95raw), metres(p50base), metres(p95base), largest(r.runs), metres(length), drift(r.runs),
		quantile(h, .5), quantile(h, .95), share, inside(r.runs), jumps(r.runs), displaced(r.runs))
}

// Dir evaluates gpsfilter with its default configuration on every drive with
// truth in dir and prints the table. A lag above 0 judges smoothed points.
func Dir(w io.Writer, dir string, lagMS int64, verbose bool) error {
	streams, err := LoadDir(dir)
	if err != nil {
		return err
	}
	return printTable(w, streams, lagMS, verbose)
}

func printTable(w io.Writer, streams []Stream, lagMS int64, verbose bool) error {
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	if err != nil {
		return fmt.Errorf("make filter: %w", err)
	}
	runner := Starling(f)
	if lagMS > 0 {
		runner = Smoothed(f, lagMS)
	}
	Evaluate(streams, runner).Print(w, verbose)
	return nil
}
