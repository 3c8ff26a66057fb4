package nearest

import (
	"fmt"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

// Bar is a promise and what was measured.
type Bar struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	AtMost bool    `json:"at_most"` // else at least
	Bound  float64 `json:"bound"`
}

// Held reports whether the measured value keeps the promise.
func (b Bar) Held() bool {
	if b.AtMost {
		return b.Value <= b.Bound
	}
	return b.Value >= b.Bound
}

func searches(m Measurement) float64 { return m.SearchesPerSecond }
func updates(m Measurement) float64  { return m.UpdatesPerSecond }
func p50(m Measurement) float64      { return float64(m.Latency.P50) }
func p99(m Measurement) float64      { return float64(m.Latency.P99) }

// ratio is the median of the rounds' ratios.
func ratio(of func(Measurement) float64, a, b []Measurement) float64 {
	n := min(len(a), len(b))
	ratios := make([]Measurement, n)
	for i := range n {
		ratios[i].SearchesPerSecond = of(a[i]) / of(b[i])
	}
	return report.Median(ratios, searches)
}

// layout returns what was measured with one, or nil.
func (r *Result) layout(name string) *LayoutResult {
	for i := range r.Layouts {
		if r.Layouts[i].Layout == name {
			return &r.Layouts[i]
		}
	}
	return nil
}

// millionP99 is the promise for fleets of a million and more.
const (
	million    = 1_000_000
	millionP99 = 5 * time.Millisecond
)

// bars compares what was measured with what is promised.
func (r *Result) bars() []Bar {
	var out []Bar
	uniform, downtown, onespot := r.layout("uniform"), r.layout("downtown"), r.layout("onespot")
	if uniform == nil {
		return nil
	}
	if len(uniform.Redis) > 0 {
		out = append(out,
			Bar{"uniform, flat out: searches/s, Starling / Redis", ratio(searches, uniform.Starling, uniform.Redis), false, 8},
			Bar{"uniform, open loop: p99, Starling / Redis", ratio(p99, uniform.OpenLoop, uniform.RedisOpenLoop), true, 0.5})
	}
	if downtown != nil && len(downtown.Redis) > 0 {
		out = append(out, Bar{"downtown, flat out: searches/s, Starling / Redis", ratio(searches, downtown.Starling, downtown.Redis), false, 8})
	}
	for _, l := range []*LayoutResult{uniform, downtown} {
		if l != nil {
			out = append(out, Bar{l.Layout + ": searches/s with filters / without", ratio(searches, l.Filtered, l.Starling), false, 0.5})
		}
	}
	if downtown != nil {
		out = append(out,
			Bar{"flat out: p99, downtown / uniform", ratio(p99, downtown.Starling, uniform.Starling), true, 3},
			Bar{"open loop: p99, downtown / uniform", ratio(p99, downtown.OpenLoop, uniform.OpenLoop), true, 3})
	}
	if onespot != nil {
		out = append(out,
			Bar{"flat out: searches/s, one spot / uniform", ratio(searches, onespot.Starling, uniform.Starling), false, 0.5},
			Bar{"flat out: p99, one spot / uniform", ratio(p99, onespot.Starling, uniform.Starling), true, 3})
	}
	for _, l := range r.Layouts {
		out = append(out, Bar{l.Layout + ", flat out: updates/s, searchable / reported", report.Median(l.Starling, updates) / float64(max(1, r.UpdatesPerSecond)), false, 0.98})
	}
	if r.Vehicles >= million {
		out = append(out, Bar{"uniform, open loop: p99 in ms", report.Median(uniform.OpenLoop, p99) / 1e6, true, millionP99.Seconds() * 1e3})
	}
	return out
}

// Misses name the bars that do not hold.
func (r *Result) Misses() []string {
	var misses []string
	for _, b := range r.Bars {
		if !b.Held() {
			misses = append(misses, fmt.Sprintf("%s is %.2f, the bound is %s", b.Name, b.Value, b.bound()))
		}
	}
	return misses
}

func (b Bar) bound() string {
	if b.AtMost {
		return fmt.Sprintf("≤ %g", b.Bound)
	}
	return fmt.Sprintf("≥ %g", b.Bound)
}

// String is the result as Markdown.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d vehicles in a square of %.0f km, %d position updates/s all the while, the %d nearest within %.0f m, %d connections. Medians of %d rounds of %v; each round starts new servers, one after the other, in changing order.\n\n",
		r.Vehicles, r.SideM/1000, r.UpdatesPerSecond, r.Results, r.RadiusM, r.Connections, r.Rounds, r.Duration)
	b.WriteString("| fleet | load | server | searches/s | p50 | p99 | updates/s | CPUs server | CPUs client |\n| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, l := range r.Layouts {
		for _, row := range []struct {
			load, server string
			rounds       []Measurement
		}{
			{"flat out", "Starling", l.Starling},
			{"flat out", "Redis", l.Redis},
			{"flat out, 1 in 20 passes", "Starling", l.Filtered},
			{fmt.Sprintf("open loop, %.0f/s", r.OpenLoop), "Starling", l.OpenLoop},
			{fmt.Sprintf("open loop, %.0f/s", r.OpenLoop), "Redis", l.RedisOpenLoop},
		} {
			if len(row.rounds) == 0 {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.0f | %s | %s | %.0f | %.2f | %.2f |\n", l.Layout, row.load, row.server,
				report.Median(row.rounds, searches), ms(report.Median(row.rounds, p50)), ms(report.Median(row.rounds, p99)), report.Median(row.rounds, updates),
				report.Median(row.rounds, func(m Measurement) float64 { return m.ServerCores }),
				report.Median(row.rounds, func(m Measurement) float64 { return m.ClientCores }))
		}
	}
	b.WriteString("\n| promise | measured | bound | |\n| --- | ---: | ---: | --- |\n")
	for _, bar := range r.Bars {
		held := "held"
		if !bar.Held() {
			held = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %.2f | %s | %s |\n", bar.Name, bar.Value, bar.bound(), held)
	}
	return b.String()
}

func ms(ns float64) string { return fmt.Sprintf("%.2f ms", ns/1e6) }
