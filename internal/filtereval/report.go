package filtereval

import (
	"fmt"
	"io"
	"math"
)

// at1 is the place of 1 Hz in PeriodsMS.
const at1 = 1

// Row is one line of the table.
type Row struct {
	// What is what was measured, Bar and Moonshot what is wanted.
	What, Bar, Moonshot string
	// Reached is what was measured.
	Reached []float64
	// Note names the kind that is worst, where one is.
	Note string
}

// Table returns the table that the filter is judged by.
func (res *Result) Table() []Row {
	clean := res.clean[at1]
	w50, w95 := worst(byKind(clean, p50raw)), worst(byKind(clean, p95raw))
	vel := withVelocity(clean)
	most, mostBase := largest(res.faulty)
	in := byKind(clean, inside)
	h50, h95, k50, k95, have := headings(clean)
	rows := []Row{
		{"clean, p50 and p95 to raw, all kinds", "0.97 0.88", "0.94 0.80", []float64{total(clean, p50raw), total(clean, p95raw)}, ""},
		{"worst kind, p50 and p95 to raw", "1.01 1.01", "1.00 1.00", []float64{w50.value, w95.value}, w50.kind + ", " + w95.kind},
		{"streams worse than raw at p50 by more than 1, 5, 10 %", "- 0.05 -", "- 0.01 -", harm(clean, p50raw), ""},
		{"streams worse than raw at p95 by more than 1, 5, 10 %", "", "", harm(clean, p95raw), ""},
		{"with a reported velocity, p50 and p95 to raw", "- 0.80", "- 0.65", []float64{total(vel, p50raw), total(vel, p95raw)}, ""},
		{"faulted, p50 and p95 to a gated filter", "0.92 0.80", "0.88 0.72", []float64{total(res.faulty, p50base), total(res.faulty, p95base)}, ""},
		{"largest error under faults, m; the gated filter's", "150", "100", []float64{most, mostBase}, ""},
		{"  runs above both 150 m and the gated filter's own", "0", "0", []float64{beyond(res.faulty, 150)}, ""},
		{"truth inside the 95 % ellipse, least and most of a kind", "0.82 0.985", "0.90 0.98", []float64{least(in).value, worst(in).value}, least(in).kind + ", " + worst(in).kind},
		{"  streams within 0.85 to 0.99", "0.85", "0.95", []float64{share(clean, func(r *judged) bool { return inside(r) >= 0.85 && inside(r) <= 0.99 })}, ""},
		{"display path to truth, clean, faulted", "1.04 1.07", "1.02 1.04", []float64{total(clean, path), total(res.faulty, path)}, ""},
		{"  without the first 10 s", "", "", []float64{total(clean, settled), total(res.faulty, settled)}, ""},
		{"display drift at standstill, m/min, clean, faulted", "10", "3", []float64{drift(clean), drift(res.faulty)}, ""},
		{"heading moving, degrees, p50 p95", "0.5 15", "0.3 8", []float64{h50, h95}, ""},
		{"  mean of kinds, p50 p95; share with a heading", "", "", []float64{k50, k95, have}, ""},
		{"accepted or standstill, share of clean fixes, least kind", "0.80", "", []float64{least(byKind(clean, accepted)).value}, least(byKind(clean, accepted)).kind},
	}
	for p, period := range PeriodsMS {
		if p == at1 {
			continue
		}
		runs := res.clean[p]
		w := worst(byKind(runs, p50raw))
		rows = append(rows, Row{
			fmt.Sprintf("at %v s: p50 to raw, worst kind's, p95", float64(period)/1000), "- 1.02 -", "- 1.00 -",
			[]float64{total(runs, p50raw), w.value, total(runs, p95raw)}, w.kind,
		})
	}
	if len(res.today) > 0 {
		m, b := largest(res.today)
		rows = append(
			rows,
			Row{"the folder truth with faults, streams alike, p50 p95", "0.804 0.399", "", []float64{geometric(res.today, p50base), geometric(res.today, p95base)}, ""},
			Row{"  largest error, m; the gated filter's; runs above both", "", "", []float64{m, b, beyond(res.today, 150)}, ""},
		)
	}
	return rows
}

// harm is the share of runs that are worse by more than 1, 5 and 10 %.
func harm(runs []judged, of func(*judged) float64) []float64 {
	var out []float64
	for _, limit := range [...]float64{1.01, 1.05, 1.10} {
		out = append(out, share(runs, func(r *judged) bool { return of(r) > limit }))
	}
	return out
}

// Print writes the table and the figures by kind, and with verbose each
// stream's.
func (res *Result) Print(w io.Writer, verbose bool) {
	p := &printer{w}
	p.line("%-58s %-11s %-11s %s", "what", "bar", "moonshot", "reached")
	for _, r := range res.Table() {
		p.line("%-58s %-11s %-11s%s  %s", r.What, r.Bar, r.Moonshot, figures(r.Reached), r.Note)
	}
	res.printKinds(p)
	if verbose {
		p.line("\n%-46s %7s %7s %6s %6s %6s %6s %6s", "stream at 1 Hz", "raw50", "raw95", "p50", "p95", "inside", "path", "accept")
		for i := range res.clean[at1] {
			r := &res.clean[at1][i]
			p.line("%-46s %7.2f %7.2f%s", r.stream.Name, r.raw.P50M, r.raw.P95M, figures([]float64{p50raw(r), p95raw(r), inside(r), path(r), accepted(r)}))
		}
	}
}

type printer struct{ w io.Writer }

func (p *printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.w, format+"\n", args...)
}

func figures(v []float64) string {
	s := ""
	for _, x := range v {
		switch {
		case math.IsNaN(x) || math.IsInf(x, 0):
			s += "      -" // nothing to measure
		case x >= 100:
			s += fmt.Sprintf(" %6.0f", x)
		default:
			s += fmt.Sprintf(" %6.3f", x)
		}
	}
	return s
}

// printKinds writes a line for each kind.
func (res *Result) printKinds(p *printer) {
	clean := res.clean[at1]
	p.line("\n%-20s %7s %7s %7s  %6s %6s  %6s %6s  %6s %6s  %6s %6s %6s  %s", "kind, 1 Hz", "streams", "raw50 m", "raw95 m", "p50", "p95", "inside", "well",
		"f.p50", "f.p95", "path", "f.path", "drift", "p50 at 0.2, 5, 15, 60 s")
	columns := []func(string) float64{}
	add := func(figs []kindFigure) {
		columns = append(columns, func(kind string) float64 {
			for _, f := range figs {
				if f.kind == kind {
					return f.value
				}
			}
			return math.NaN()
		})
	}
	add(byKind(clean, p50raw))
	add(byKind(clean, p95raw))
	add(byKind(clean, inside))
	add(wellCovered(clean))
	add(byKind(res.faulty, p50base))
	add(byKind(res.faulty, p95base))
	add(byKind(clean, path))
	add(byKind(res.faulty, settled))
	add(driftByKind(clean))
	for q := range PeriodsMS {
		if q != at1 {
			add(byKind(res.clean[q], p50raw))
		}
	}
	raw95 := byKind(clean, func(r *judged) float64 { return r.raw.P95M })
	for i, k := range byKind(clean, func(r *judged) float64 { return r.raw.P50M }) {
		n := 0
		for j := range clean {
			if clean[j].stream.Kind == k.kind {
				n++
			}
		}
		var v []float64
		for _, c := range columns {
			v = append(v, c(k.kind))
		}
		p.line("%-20s %7d %7.2f %7.2f %s %s %s %s %s", k.kind, n, k.value, raw95[i].value,
			figures(v[:2]), figures(v[2:4]), figures(v[4:6]), figures(v[6:9]), figures(v[9:]))
	}
}

// wellCovered is each kind's share of streams with 0.85 to 0.99 of the truth
// inside the ellipse.
func wellCovered(runs []judged) []kindFigure {
	n, well := map[string]float64{}, map[string]float64{}
	var order []string
	for i := range runs {
		k := runs[i].stream.Kind
		if n[k] == 0 {
			order = append(order, k)
		}
		n[k]++
		if in := inside(&runs[i]); in >= 0.85 && in <= 0.99 {
			well[k]++
		}
	}
	var out []kindFigure
	for _, k := range order {
		out = append(out, kindFigure{k, well[k] / n[k]})
	}
	return out
}
