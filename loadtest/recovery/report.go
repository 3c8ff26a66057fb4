package recovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

// maxCheckpointShare is the part of the CPU for each fix that checkpoints may
// take.
const maxCheckpointShare = 0.10

// Serving is the median time to serve again.
func (r Result) Serving() time.Duration {
	return report.Median(r.Kills, func(k Kill) time.Duration { return k.Serving })
}

// OK reports whether the median is within the limit.
func (r Result) OK() bool { return len(r.Kills) > 0 && r.Serving() <= r.Limit }

// String is a table, with its method.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Recovery, %s log, %d vehicles\n\n", r.Log, r.Vehicles)
	fmt.Fprintf(&b, "%.0f fixes/s throughout, %v of history, a checkpoint every %v; all processes killed at once at a random time between two checkpoints. Times are from the start of the new ones.%s\n\n",
		r.FixesPerSecond, r.History, checkpointInterval, r.sessionNote())
	b.WriteString("| kill | serving again | CPU until then | states loaded | records replayed | tracks read | vehicles |\n|---|---|---|---|---|---|---|\n")
	row := func(name string, k Kill) {
		fmt.Fprintf(&b, "| %s | %.2f s | %.2f s | %.2f s | %d | %d | %d |\n", name, k.Serving.Seconds(), k.CPU.Seconds(), k.Loading.Seconds(), k.SteppedRecords, k.ReadTracks, k.RestoredVehicles)
	}
	for i, k := range r.Kills {
		row(fmt.Sprint(i+1), k)
	}
	row("median", Kill{
		Serving: r.Serving(), CPU: report.Median(r.Kills, func(k Kill) time.Duration { return k.CPU }),
		Loading:          report.Median(r.Kills, func(k Kill) time.Duration { return k.Loading }),
		SteppedRecords:   report.Median(r.Kills, func(k Kill) int64 { return k.SteppedRecords }),
		ReadTracks:       report.Median(r.Kills, func(k Kill) int64 { return k.ReadTracks }),
		RestoredVehicles: report.Median(r.Kills, func(k Kill) int64 { return k.RestoredVehicles }),
	})
	return b.String()
}

// Misses reports whether the limit was missed.
func (r Result) Misses() []string {
	if r.OK() {
		return nil
	}
	return []string{fmt.Sprintf("served again after %.2f s (median of %d kills), the limit is %v", r.Serving().Seconds(), len(r.Kills), r.Limit)}
}

func (r Result) sessionNote() string {
	if r.Log != "kafka" {
		return ""
	}
	return fmt.Sprintf(" Those started when the dead members' session of %v was over.", sessionTimeout)
}

// Share is the median of the rounds' shares.
func (c Cost) Share() float64 { return report.Median(c.Rounds, CostRound.Share) }

// OK reports whether the share is within its limit.
func (c Cost) OK() bool { return len(c.Rounds) > 0 && c.Share() <= maxCheckpointShare }

// String is a table, with its method.
func (c Cost) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Cost of checkpoints, %s log\n\n", c.Log)
	fmt.Fprintf(&b, "%d vehicles with full windows, %.0f fixes/s, %d a report; CPU of all of Starling's processes, user and system, over %v; with and without take turns, each time on an empty log.\n\n",
		c.Vehicles, c.FixesPerSecond, c.FixesPerReport, c.Duration)
	b.WriteString("| round | with | without | share | state |\n|---|---|---|---|---|\n")
	row := func(name string, r CostRound, share float64) {
		fmt.Fprintf(&b, "| %s | %.2f µs/fix | %.2f µs/fix | %.1f %% | %.0f B/fix |\n", name, report.Micros(r.With), report.Micros(r.Without), 100*share, r.StateBytes)
	}
	for i, r := range c.Rounds {
		row(fmt.Sprint(i+1), r, r.Share())
	}
	row("median", CostRound{
		With:       report.Median(c.Rounds, func(r CostRound) time.Duration { return r.With }),
		Without:    report.Median(c.Rounds, func(r CostRound) time.Duration { return r.Without }),
		StateBytes: report.Median(c.Rounds, func(r CostRound) float64 { return r.StateBytes }),
	}, c.Share())
	return b.String()
}

// Misses reports whether the limit was missed.
func (c Cost) Misses() []string {
	if c.OK() {
		return nil
	}
	return []string{fmt.Sprintf("checkpoints take %.1f %% of the CPU for each fix (median of %d rounds), the limit is %.0f %%", 100*c.Share(), len(c.Rounds), 100*maxCheckpointShare)}
}
