package pipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

// Goals of the local log. On Kafka the same numbers are stated without a goal.
const (
	minIngestRatio  = 0.8
	maxSearchable   = 100 * time.Millisecond
	maxMatcherBytes = 300
	trackerBytes    = 1536
	trackerPerFix   = 48
)

// maxAboveBaseline is the CPU that Starling may use above the baseline pipeline for
// each fix.
func maxAboveBaseline(fixesPerReport int) time.Duration {
	if fixesPerReport < 5 {
		return 4 * time.Microsecond
	}
	return 2 * time.Microsecond
}

// Misses names the goals that were missed; on Kafka there are none.
func (r Result) Misses() []string {
	if r.Log != "local" {
		return nil
	}
	var misses []string
	miss := func(missed bool, format string, args ...any) {
		if missed {
			misses = append(misses, fmt.Sprintf(format, args...))
		}
	}
	for _, s := range r.Sizes {
		n := s.FixesPerReport
		miss(s.IngestRatio < minIngestRatio, "%d a report: %.2f of the baseline's acknowledged fixes/s, the goal is %.1f", n, s.IngestRatio, minIngestRatio)
		miss(s.CPUAboveBaseline > maxAboveBaseline(n), "%d a report: %.2f µs of CPU a fix above the baseline, the goal is %.0f", n, report.Micros(s.CPUAboveBaseline), report.Micros(maxAboveBaseline(n)))
		miss(s.SearchableP99 > maxSearchable, "%d a report: searchable within %v (p99), the goal is %v", n, s.SearchableP99.Round(time.Millisecond), maxSearchable)
		miss(s.WorstLag > r.Duration/10, "%d a report: the lag grew by %v within %v", n, s.WorstLag.Round(time.Millisecond), r.Duration)
	}
	if h := r.Heap; h != nil {
		goal := float64(trackerBytes + trackerPerFix*h.WindowFixes)
		miss(h.TrackerB > goal, "tracker: %.0f B of live heap a vehicle, the goal is %.0f", h.TrackerB, goal)
		miss(h.MatcherB > maxMatcherBytes, "matcher: %.0f B of live heap a vehicle, the goal is %d", h.MatcherB, maxMatcherBytes)
	}
	return misses
}

// String is the result as Markdown, with its method.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s log\n\n", strings.ToUpper(r.Log[:1])+r.Log[1:])
	fmt.Fprintf(&b, "Medians of %d rounds of %v; baseline and Starling run next to each other, each time in a new process on an empty log, and change places every round. CPU is the server process's, user and system. %s\n\n",
		r.Rounds, r.Duration, r.Note)
	row := func(name string, cell func(Size) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, s := range r.Sizes {
			fmt.Fprintf(&b, " %s |", cell(s))
		}
		b.WriteString("\n")
	}
	row("fixes a message", func(s Size) string { return fmt.Sprint(s.FixesPerReport) })
	row("---", func(Size) string { return "---:" })
	row("acknowledged, baseline, fixes/s", func(s Size) string { return thousands(s.BaselineIngest) })
	row("acknowledged, Starling without trackers, fixes/s", func(s Size) string { return thousands(s.StarlingIngest) })
	row("**Starling / baseline**", func(s Size) string { return fmt.Sprintf("**%.2f**", s.IngestRatio) })
	row("CPU at that rate, baseline, µs a fix", func(s Size) string { return fmt.Sprintf("%.2f", report.Micros(s.BaselineIngestCPU)) })
	row("CPU at that rate, Starling without trackers, µs a fix", func(s Size) string { return fmt.Sprintf("%.2f", report.Micros(s.StarlingIngestCPU)) })
	row("Starling sustains end to end, fixes/s", func(s Size) string { return thousands(s.Sustainable) })
	row("the rest is measured at half of it, fixes/s", func(s Size) string { return thousands(s.Rate) })
	row("CPU end to end, baseline, µs a fix", func(s Size) string { return fmt.Sprintf("%.2f", report.Micros(s.BaselineWholeCPU)) })
	row("CPU end to end, Starling, µs a fix", func(s Size) string { return fmt.Sprintf("%.2f", report.Micros(s.StarlingWholeCPU)) })
	row("**Starling above the baseline, µs a fix**", func(s Size) string { return fmt.Sprintf("**%.2f**", report.Micros(s.CPUAboveBaseline)) })
	row("lag grown in the worst round", func(s Size) string { return s.WorstLag.Round(time.Millisecond).String() })
	row("acknowledged, p99", func(s Size) string { return s.AckP99.Round(100 * time.Microsecond).String() })
	row("searchable, p50", func(s Size) string { return s.SearchableP50.Round(100 * time.Microsecond).String() })
	row("**searchable, p99**", func(s Size) string { return "**" + s.SearchableP99.Round(100*time.Microsecond).String() + "**" })
	if h := r.Heap; h != nil {
		fmt.Fprintf(&b, "\nLive heap with %d vehicles, %d fixes in each reorder window (sampled profile after a collection, by the package that allocated): tracker %.0f B a vehicle, matcher %.0f B a vehicle; of the process: log %.0f MB, ingest with gRPC %.0f MB, other %.0f MB.\n",
			h.Vehicles, h.WindowFixes, h.TrackerB, h.MatcherB, h.LogB/1e6, h.IngestB/1e6, h.OtherB/1e6)
	}
	return b.String()
}

// Results are those of the logs that were measured, one after the other.
type Results []Result

// String is all of them.
func (rs Results) String() string {
	parts := make([]string, len(rs))
	for i, r := range rs {
		parts[i] = r.String()
	}
	return strings.Join(parts, "\n")
}

// Misses are the goals that any of them missed.
func (rs Results) Misses() []string {
	var misses []string
	for _, r := range rs {
		misses = append(misses, r.Misses()...)
	}
	return misses
}

func thousands(x float64) string {
	s := fmt.Sprintf("%.0f", x)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
