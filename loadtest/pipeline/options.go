// Package pipeline measures Starling beside the baseline pipeline, in one run, on one
// machine: children of this process serve, in turn and under the same load, and
// their CPU time is their own.
package pipeline

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Options are the settings of a measurement.
type Options struct {
	// Starling is the path of the starling binary.
	Starling string
	// Serve is the command line of a child that serves Kind, to which the flags
	// of childArgs are added.
	Serve []string
	// KafkaBrokers are the log; empty means the local one.
	KafkaBrokers []string
	// Note is added to the description of the method, such as where Kafka runs.
	Note string
	// FixesPerReport are the sizes that are measured.
	FixesPerReport []int
	// Rounds is how often each measurement is repeated; the medians count.
	Rounds int
	// Warmup and Duration of each measurement.
	Warmup, Duration time.Duration
	// HeapVehicles is the fleet's size for the heap; 0 leaves that out.
	HeapVehicles int
	// WorkDir holds the local logs, one at a time; empty means a temporary
	// folder.
	WorkDir string
	// Progress, if not nil, is called with each step.
	Progress func(string)
}

// DefaultOptions are what `make bench` measures.
func DefaultOptions() Options {
	return Options{
		FixesPerReport: []int{1, 5, 50}, Rounds: 5,
		Warmup: 2 * time.Second, Duration: 4 * time.Second, HeapVehicles: 100_000,
	}
}

// Validate names every field that breaks its rule.
func (o Options) Validate() error {
	var faults valid.Faults
	faults.Need(o.Starling != "", "starling", o.Starling, "the path of the binary")
	faults.Need(len(o.Serve) > 0, "serve", o.Serve, "a command line")
	faults.Need(len(o.FixesPerReport) > 0, "fixes_per_report", o.FixesPerReport, "at least one size")
	for _, n := range o.FixesPerReport {
		valid.Between(&faults, "fixes_per_report", n, 1, limits.MaxFixesPerReport)
	}
	valid.AtLeast(&faults, "rounds", o.Rounds, 1)
	valid.Positive(&faults, "warmup", o.Warmup)
	valid.Positive(&faults, "duration", o.Duration)
	valid.AtLeast(&faults, "heap_vehicles", o.HeapVehicles, 0)
	return faults.Err()
}

// Kind is what a child serves.
type Kind string

// The kinds. The first three are served by the command Options.Serve.
const (
	// BaselineIngest is the baseline without its reader.
	BaselineIngest Kind = "baseline-ingest"
	// BaselineWhole is the baseline pipeline with its reader.
	BaselineWhole Kind = "baseline-whole"
	// StarlingIngest is Starling's ingest alone on the local log, which the
	// starling binary can't be: there, a local log has all roles.
	StarlingIngest Kind = "starling-ingest"
	// StarlingWhole is `starling up`.
	StarlingWhole Kind = "starling-whole"
)
