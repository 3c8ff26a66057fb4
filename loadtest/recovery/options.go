// Package recovery measures what the promise that nothing is lost costs: how
// soon after a kill a fleet is restored and served, and how much CPU the
// checkpoints take.
package recovery

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Options are the settings of a measurement.
type Options struct {
	// Starling is the command line of the binary, without a role.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// KafkaBrokers put the log on Kafka; empty means the local log.
	KafkaBrokers []string
	// Args are added to every process's command line.
	Args []string

	// Vehicles report FixesPerSecond together, FixesPerReport at a time.
	Vehicles       int
	FixesPerSecond float64
	FixesPerReport int
	// Streams over which the vehicles share.
	Streams int

	// History is how long the fleet has reported before the first kill, and
	// Between how long after each recovery before the next; a random part of
	// Between is added to either.
	History, Between time.Duration
	// Kills is how often everything is killed and started again.
	Kills int

	// Rounds is how many pairs of runs the cost of checkpoints is taken from,
	// each Warmup and Duration long.
	Rounds           int
	Warmup, Duration time.Duration

	// Limit is how long a recovery may take.
	Limit time.Duration
	// Progress, if not nil, is called with each step.
	Progress func(string)
}

// checkpointInterval is the one that the goals are stated for, which is also
// the default.
const checkpointInterval = 10 * time.Second

// sessionTimeout is kafka.session_timeout's default: as long after a kill a
// group still counts its dead members.
const sessionTimeout = 6 * time.Second

// DefaultOptions are those of the smaller goal: 100,000 vehicles and 20,000
// fixes a second. The history is longer than the stretch of `tracks` that a
// matcher reads.
func DefaultOptions() Options {
	return Options{
		Vehicles: 100_000, FixesPerSecond: 20_000, FixesPerReport: 1, Streams: 50,
		History: 200 * time.Second, Between: 15 * time.Second, Kills: 5,
		Rounds: 5, Warmup: 20 * time.Second, Duration: 40 * time.Second,
		Limit: 5 * time.Second,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	faults.Need(o.Streams >= 1 && o.Vehicles >= 1 && o.Vehicles%max(1, o.Streams) == 0, "vehicles", o.Vehicles, fmt.Sprintf("a positive multiple of streams %d", o.Streams))
	faults.Need(o.Vehicles <= 1_000_000, "vehicles", o.Vehicles, "at most 1000000")
	valid.Positive(&faults, "fixes_per_second", o.FixesPerSecond)
	valid.Between(&faults, "fixes_per_report", o.FixesPerReport, 1, 500)
	valid.AtLeast(&faults, "history", o.History, 0)
	valid.AtLeast(&faults, "between", o.Between, 0)
	faults.Need(o.Kills >= 1, "kills", o.Kills, "positive")
	faults.Need(o.Rounds >= 1, "rounds", o.Rounds, "positive")
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.Positive(&faults, "duration", o.Duration)
	valid.Positive(&faults, "limit", o.Limit)
	return faults.Err()
}

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

func (o *Options) onKafka() bool { return len(o.KafkaBrokers) > 0 }
