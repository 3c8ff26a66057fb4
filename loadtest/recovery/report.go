package recovery

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxCheckpointShare is the part of the CPU for each fix that checkpoints may
// take.
const maxCheckpointShare = 0.10

// Serving is the median time to serve again.
func (r Result) Serving() time.Duration {
	return median(r.Kills, func(k Kill) time.Duration { return k.Serving })
}

// OK says that the median is within the limit.
func (r Result) OK() bool { return len(r.Kills) > 0 && r.Serving() <= r.Limit }

// String is a table, with its method.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Recovery, %s log, %d vehicles\n\n", r.Log, r.Vehicles)
	fmt.Fprintf(&b, "%s. %.0f fixes/s throughout, %v of history, a checkpoint every %v; all processes killed at once at a random time between two checkpoints. Times are from the start of the new ones.%s\n\n",
		r.Machine, r.FixesPerSecond, r.History, checkpointInterval, r.sessionNote())
	b.WriteString("| kill | serving again | CPU until then | states loaded | records replayed | tracks read | vehicles |\n|---|---|---|---|---|---|---|\n")
	row := func(name string, k Kill) {
		fmt.Fprintf(&b, "| %s | %.2f s | %.2f s | %.2f s | %d | %d | %d |\n", name, k.Serving.Seconds(), k.CPU.Seconds(), k.Loading.Seconds(), k.SteppedRecords, k.ReadTracks, k.RestoredVehicles)
	}
	for i, k := range r.Kills {
		row(fmt.Sprint(i+1), k)
	}
	row("median", Kill{
		Serving: r.Serving(), CPU: median(r.Kills, func(k Kill) time.Duration { return k.CPU }),
		Loading:          median(r.Kills, func(k Kill) time.Duration { return k.Loading }),
		SteppedRecords:   median(r.Kills, func(k Kill) int64 { return k.SteppedRecords }),
		ReadTracks:       median(r.Kills, func(k Kill) int64 { return k.ReadTracks }),
		RestoredVehicles: median(r.Kills, func(k Kill) int64 { return k.RestoredVehicles }),
	})
	verdict := "kept"
	if !r.OK() {
		verdict = "MISSED"
	}
	fmt.Fprintf(&b, "\nThe limit of %v is %s.\n", r.Limit, verdict)
	return b.String()
}

func (r Result) sessionNote() string {
	if r.Log != "kafka" {
		return ""
	}
	return fmt.Sprintf(" Those started when the dead members' session of %v was over.", sessionTimeout)
}

// Share is the median of the rounds' shares.
func (c Cost) Share() float64 { return median(c.Rounds, CostRound.Share) }

// OK says that the share is within its limit.
func (c Cost) OK() bool { return len(c.Rounds) > 0 && c.Share() <= maxCheckpointShare }

// String is a table, with its method.
func (c Cost) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Cost of checkpoints, %s log\n\n", c.Log)
	fmt.Fprintf(&b, "%s. %d vehicles with full windows, %.0f fixes/s, %d a report; CPU of all of Starling's processes, user and system, over %v; with and without take turns, each time on an empty log.\n\n",
		c.Machine, c.Vehicles, c.FixesPerSecond, c.FixesPerReport, c.Duration)
	b.WriteString("| round | with | without | share | state |\n|---|---|---|---|---|\n")
	row := func(name string, r CostRound, share float64) {
		fmt.Fprintf(&b, "| %s | %.2f µs/fix | %.2f µs/fix | %.1f %% | %.0f B/fix |\n", name, micros(r.With), micros(r.Without), 100*share, r.StateBytes)
	}
	for i, r := range c.Rounds {
		row(fmt.Sprint(i+1), r, r.Share())
	}
	row("median", CostRound{
		With:       median(c.Rounds, func(r CostRound) time.Duration { return r.With }),
		Without:    median(c.Rounds, func(r CostRound) time.Duration { return r.Without }),
		StateBytes: median(c.Rounds, func(r CostRound) float64 { return r.StateBytes }),
	}, c.Share())
	verdict := "kept"
	if !c.OK() {
		verdict = "MISSED"
	}
	fmt.Fprintf(&b, "\nThe limit of %.0f %% is %s.\n", 100*maxCheckpointShare, verdict)
	return b.String()
}

// String names the machine.
func (m Machine) String() string {
	return fmt.Sprintf("%s/%s, %d CPUs shared by Starling, its log and the load, %s", m.OS, m.Arch, m.CPUs, m.Go)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// median is the mean of the two in the middle when there is no one there.
func median[T any, N int64 | float64 | time.Duration](all []T, of func(T) N) N {
	values := make([]N, len(all))
	for i, x := range all {
		values[i] = of(x)
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}
