package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/drill/check"
)

// Account is what came of a drill.
type Account struct {
	Options Options
	// Findings are what is off; a drill that passes has none.
	Findings check.Findings
	Totals   check.Totals

	// Kills by role, and the zombies.
	Kills   map[string]int
	Zombies int
	// Serving are the times from a start after a kill to serving, sorted, and
	// CutShort the starts that were killed before.
	Serving  []time.Duration
	CutShort int
	// Breaks of streams, reports that were sent again after them, and copies
	// that were sent on purpose.
	Breaks, Resends, Copies int64
	Statuses                string
	// Reported is how long the fleet reported, and AckedWhileReporting how many
	// fixes were acknowledged in that time.
	Reported            time.Duration
	AckedWhileReporting int64
	// LongestWithoutAck is the longest time in which no client was acknowledged
	// anything, LongestWithoutAnswer in which the matcher answered no question.
	LongestWithoutAck, LongestWithoutAnswer time.Duration
	// LongestUnseen is the longest time for which the matcher served a vehicle
	// without its newest report, counted from when that was due.
	LongestUnseen time.Duration
	Probes        int64
	// LongestHeld is the longest time for which an honest vehicle was served
	// where it no longer was, or where a fix stamped ahead had it; measured only
	// where clocks are set wrong.
	LongestHeld time.Duration
	// Gaps are what the phases of a rollout's plan cost.
	Gaps []Gap
}

func (a *Account) take(f *fleet, k *killer, p *probe, c *check.Checker) {
	for _, findings := range []*check.Findings{&f.findings, &k.findings, &p.findings, &c.Findings} {
		a.Findings.Merge(findings)
	}
	a.Totals = c.Totals
	a.Kills, a.Zombies, a.Serving, a.CutShort = k.kills, k.zombies, k.serving, k.cutShort
	slices.Sort(a.Serving)
	a.Breaks, a.Resends, a.Copies = f.breaks.Load(), f.resends.Load(), f.copies.Load()
	a.LongestWithoutAnswer, a.LongestUnseen, a.Probes, a.LongestHeld = p.longest, p.oldest, p.answers, p.oldestFix
	a.Statuses = fmt.Sprint(f.statuses)
	if n := a.killed(); n != a.Options.Kills || a.Zombies != a.Options.Zombies {
		a.Findings.Add("a drill that was cut short", "%d of %d kills, %d of %d zombies", n, a.Options.Kills, a.Zombies, a.Options.Zombies)
	}
	if limit := time.Duration(float64(mostHeld) * a.Options.slack()); a.LongestHeld > limit {
		a.Findings.Add("an honest vehicle that was held", "for %v, limit %v", a.LongestHeld, limit)
	}
	if a.Options.LogClock != nil && a.Totals.SetAside == 0 {
		a.Findings.Add("a drill that shows nothing", "no fix was set aside")
	}
	if a.Totals.FixesAcked == 0 || a.Probes == 0 {
		a.Findings.Add("a drill that shows nothing", "%d fixes acknowledged, %d questions answered", a.Totals.FixesAcked, a.Probes)
	}
}

func (a *Account) killed() (n int) {
	for _, k := range a.Kills {
		n += k
	}
	return n
}

// OK reports whether the drill found nothing.
func (a *Account) OK() bool { return a.Findings.None() }

// Misses is one line for a drill that found something; String has the findings.
func (a *Account) Misses() []string {
	if a.OK() {
		return nil
	}
	return []string{fmt.Sprintf("the drill found what must not be (repeat with -seed %d)", a.Options.Seed)}
}

// String is the account in words.
func (a *Account) String() string {
	t := &a.Totals
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("disturbed", "%d kills %v, %d zombies; seed %d", a.killed(), a.Kills, a.Zombies, a.Options.Seed)
	for _, g := range a.Gaps {
		line(fmt.Sprintf("%.2f s", g.Longest.Seconds()), "%s", g.Phase)
	}
	if n := len(a.Serving); n > 0 {
		line("serving after a start", "median %v, longest %v; %d starts were killed before", round(a.Serving[n/2]), round(a.Serving[n-1]), a.CutShort)
	}
	line("longest without", "acknowledgement %v, answer of the matcher %v, a vehicle's new report %v (%d questions)",
		round(a.LongestWithoutAck), round(a.LongestWithoutAnswer), round(a.LongestUnseen), a.Probes)
	if a.Options.LogClock != nil {
		line("honest vehicles held", "at most %v", round(a.LongestHeld))
	}
	line("sent", "%d vehicles, %d reports, %d fixes; %d reports again after %d broken streams %s, %d copies", t.Vehicles, t.ReportsSent, t.FixesSent, a.Resends, a.Breaks, a.Statuses, a.Copies)
	line("acknowledged", "%d reports with %d fixes, %d fixes refused; %.0f fixes/s while reporting (asked for %d)", t.ReportsAcked, t.FixesAcked, t.Refused, float64(a.AckedWhileReporting)/a.Reported.Seconds(), a.Options.FixesPerSecond)
	line("locations", "%d records (%d ticks, %d copies, %d never acknowledged), %d fixes, %d without copies", t.Locations, t.Ticks, t.CopiesStored, t.UnacknowledgedStored, t.FixesStored, t.DistinctFixes)
	line("tracks", "%d records, %d repeats and %d behind a gap that was filled; %d fixes accepted, %d duplicate, %d conflict, %d late, %d set aside; %d final points", t.Tracks, t.Repeats, t.Skipped, t.Accepted, t.Duplicate, t.Conflict, t.Late, t.SetAside, t.FinalPoints)
	if a.OK() {
		line("result", "nothing lost, nothing twice, tracks and fleet as undisturbed")
	} else {
		b.WriteString(a.Findings.String())
		line("result", "OFF (repeat with -seed %d)", a.Options.Seed)
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
