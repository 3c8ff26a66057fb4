// Package soak runs `starling up` for a while at half of the load that it
// sustains, and then with the same fleet silent, and judges whether its memory and
// its disk stay flat.
package soak

import (
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Options are the settings of a soak.
type Options struct {
	// Starling is the binary, and what comes before its arguments.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// Duration and Silence are how long the phases of load and of silence are
	// measured, each after Settle.
	Duration, Silence, Settle time.Duration
	// FixesPerSecond of the load; 0 means half of what is sustained, which is
	// looked for over Calibration.
	FixesPerSecond float64
	Calibration    time.Duration
	// Streams are open at a time, each with VehiclesPerStream vehicles.
	Streams, VehiclesPerStream, FixesPerReport int
	// RetentionBytes is what the log keeps of tracks; of locations, which are about a
	// fifth as large, it keeps a quarter as much. The load is measured once so much has
	// been written that retention deletes of both: a log that fills up is not flat.
	RetentionBytes int64
	// Fill is how many times what is kept must have been written before the load is
	// measured.
	Fill float64
	// Windows are how many medians are taken of a phase; each may be off the
	// median of all by Band, a share.
	Windows int
	Band    float64
	// SampleInterval is the time between two looks.
	SampleInterval time.Duration
	// Progress, if not nil, is called with what is going on.
	Progress func(string)
}

// DefaultOptions are those of `make soak`.
func DefaultOptions() Options {
	return Options{
		Duration: 20 * time.Minute, Silence: 20 * time.Minute, Settle: 3 * time.Minute, Calibration: 20 * time.Second,
		Streams: 20, VehiclesPerStream: 500, FixesPerReport: 5,
		RetentionBytes: 512 << 20, Fill: 1.5, Windows: 5, Band: 0.10, SampleInterval: time.Second,
	}
}

func (o *Options) locationBytes() int64 { return o.RetentionBytes / 4 }

// Validate names every field that breaks its rule.
func (o *Options) Validate() error {
	var faults valid.Faults
	faults.Need(len(o.Starling) > 0, "starling", o.Starling, "a command line")
	valid.Positive(&faults, "duration", o.Duration)
	valid.Positive(&faults, "silence", o.Silence)
	valid.AtLeast(&faults, "settle", o.Settle, 0)
	valid.AtLeast(&faults, "rate", o.FixesPerSecond, 0)
	faults.Need(o.FixesPerSecond > 0 || o.Calibration > 0, "calibration", o.Calibration, "positive when no rate is set")
	faults.Need(o.Streams >= 1 && o.VehiclesPerStream >= 1, "streams_%d_and_vehicles_per_stream", o.Streams, "at least 1")
	valid.AtLeast(&faults, "fixes_per_report", o.FixesPerReport, 1)
	faults.Need(o.RetentionBytes >= 32<<20, "retention_bytes", o.RetentionBytes, "at least 32 MiB")
	valid.AtLeast(&faults, "fill", o.Fill, 0)
	valid.AtLeast(&faults, "windows", o.Windows, 2)
	valid.Positive(&faults, "band", o.Band)
	faults.Need(o.SampleInterval > 0 && o.SampleInterval*time.Duration(max(1, o.Windows)) <= min(o.Duration, o.Silence), "sample_interval", o.SampleInterval, fmt.Sprintf("leave a sample for each of %d windows of %v and %v", o.Windows, o.Duration, o.Silence))
	return faults.Err()
}
