// Package soak runs `starling up` for a while at half of the load that it
// sustains, and then with the same fleet silent, and judges whether its memory and
// its disk stay flat.
package soak

import (
	"errors"
	"fmt"
	"time"
)

// Options are the settings of a soak.
type Options struct {
	// Starling is the binary, and what comes before its arguments.
	Starling []string
	// WorkDir is where the local log is put; empty means the system's temporary
	// folder.
	WorkDir string
	// Duration is how long each of the two phases is measured, after Settle.
	Duration, Settle time.Duration
	// FixesPerSecond of the load; 0 means half of what is sustained, which is
	// looked for over Calibration.
	FixesPerSecond float64
	Calibration    time.Duration
	// Streams are open at a time, each with VehiclesPerStream vehicles.
	Streams, VehiclesPerStream, FixesPerReport int
	// RetentionBytes is what the log keeps of locations, and of tracks.
	RetentionBytes int64
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
		Duration: 20 * time.Minute, Settle: 3 * time.Minute, Calibration: 20 * time.Second,
		Streams: 20, VehiclesPerStream: 500, FixesPerReport: 5,
		RetentionBytes: 512 << 20, Windows: 5, Band: 0.10, SampleInterval: time.Second,
	}
}

// Validate names every field that breaks its rule.
func (o *Options) Validate() error {
	var faults []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	rule(len(o.Starling) > 0, "starling must name the binary")
	rule(o.Duration > 0, "duration %v must be positive", o.Duration)
	rule(o.Settle >= 0, "settle %v must not be negative", o.Settle)
	rule(o.FixesPerSecond >= 0, "rate %v must not be negative", o.FixesPerSecond)
	rule(o.FixesPerSecond > 0 || o.Calibration > 0, "calibration %v must be positive when no rate is set", o.Calibration)
	rule(o.Streams >= 1 && o.VehiclesPerStream >= 1, "streams %d and vehicles_per_stream %d must be at least 1", o.Streams, o.VehiclesPerStream)
	rule(o.FixesPerReport >= 1, "fixes_per_report %d must be at least 1", o.FixesPerReport)
	rule(o.RetentionBytes >= 16<<20, "retention_bytes %d must be at least 16 MiB", o.RetentionBytes)
	rule(o.Windows >= 2, "windows %d must be at least 2", o.Windows)
	rule(o.Band > 0, "band %v must be positive", o.Band)
	rule(o.SampleInterval > 0 && o.SampleInterval*time.Duration(max(1, o.Windows)) <= o.Duration, "sample_interval %v must leave a sample for each of %d windows of %v", o.SampleInterval, o.Windows, o.Duration)
	return errors.Join(faults...)
}
