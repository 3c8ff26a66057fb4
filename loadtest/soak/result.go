package soak

import (
	"fmt"
	"strings"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

// sample is one look at the process.
type sample struct {
	at          time.Duration // since its phase is measured
	residentB   int64
	heapB       int64 // of live and unswept objects
	diskB       int64
	cpu         time.Duration // used so far
	fixesTotal  float64
	goroutinesN int64
}

// Window is a part of a phase; its figures are medians.
type Window struct {
	From          time.Duration `json:"from_ns"`
	To            time.Duration `json:"to_ns"`
	ResidentBytes int64         `json:"resident_bytes"`
	HeapBytes     int64         `json:"heap_bytes"`
	DiskBytes     int64         `json:"disk_bytes"`
	Goroutines    int64         `json:"goroutines"`
	// CPU is the mean number of processors in use, FixesPerSecond what the
	// tracker took.
	CPU            float64 `json:"cpu"`
	FixesPerSecond float64 `json:"fixes_per_second"`
}

// Phase is the load or the silence.
type Phase struct {
	Name    string   `json:"name"`
	Windows []Window `json:"windows"`
	// Resident and Disk are the medians of all samples, in bytes.
	Resident int64 `json:"resident_bytes"`
	Disk     int64 `json:"disk_bytes"`
}

// Result is what a soak measures.
type Result struct {
	SustainableFixesPerSecond float64 `json:"sustainable_fixes_per_second"`
	OfferedFixesPerSecond     float64 `json:"offered_fixes_per_second"`
	Vehicles                  int     `json:"vehicles"`
	Phases                    []Phase `json:"phases"`
	// Faults are the windows outside the band, and what else went wrong.
	Faults []string `json:"faults"`
}

// Misses implements report.Result.
func (r *Result) Misses() []string { return r.Faults }

// newPhase sums a phase up.
func newPhase(name string, samples []sample, windows int, duration time.Duration) Phase {
	p := Phase{Name: name}
	p.Resident = report.Median(samples, func(s sample) int64 { return s.residentB })
	p.Disk = report.Median(samples, func(s sample) int64 { return s.diskB })
	for i := range windows {
		w := Window{From: duration * time.Duration(i) / time.Duration(windows), To: duration * time.Duration(i+1) / time.Duration(windows)}
		var in []sample
		for _, s := range samples {
			if s.at >= w.From && s.at < w.To {
				in = append(in, s)
			}
		}
		if len(in) > 1 {
			first, last := in[0], in[len(in)-1]
			w.CPU = (last.cpu - first.cpu).Seconds() / (last.at - first.at).Seconds()
			w.FixesPerSecond = (last.fixesTotal - first.fixesTotal) / (last.at - first.at).Seconds()
		}
		w.ResidentBytes = report.Median(in, func(s sample) int64 { return s.residentB })
		w.HeapBytes = report.Median(in, func(s sample) int64 { return s.heapB })
		w.DiskBytes = report.Median(in, func(s sample) int64 { return s.diskB })
		w.Goroutines = report.Median(in, func(s sample) int64 { return s.goroutinesN })
		p.Windows = append(p.Windows, w)
	}
	return p
}

// judge returns the windows that are off the phase's median by more than a share.
func (p *Phase) judge(band float64) (faults []string) {
	check := func(i int, what string, is, median int64) {
		if off := float64(is)/float64(median) - 1; median <= 0 || off > band || off < -band {
			faults = append(faults, fmt.Sprintf("%s: %s of window %d is %.0f MiB, %+.0f %% from the median of %.0f MiB, at most %.0f %% is flat",
				p.Name, what, i+1, mebi(is), 100*off, mebi(median), 100*band))
		}
	}
	for i, w := range p.Windows {
		check(i, "memory", w.ResidentBytes, p.Resident)
		check(i, "disk", w.DiskBytes, p.Disk)
	}
	return faults
}

func mebi(b int64) float64 { return float64(b) / (1 << 20) }

// String is the result as a table.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d vehicles, %.0f fixes/s offered", r.Vehicles, r.OfferedFixesPerSecond)
	if r.SustainableFixesPerSecond > 0 {
		fmt.Fprintf(&b, ", half of the sustained %.0f", r.SustainableFixesPerSecond)
	}
	b.WriteString(".\n\n| phase | minutes | memory MiB | heap MiB | disk MiB | goroutines | CPUs | fixes/s |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		for _, w := range p.Windows {
			fmt.Fprintf(&b, "| %s | %.1f to %.1f | %.0f | %.0f | %.0f | %d | %.2f | %.0f |\n",
				p.Name, w.From.Minutes(), w.To.Minutes(), mebi(w.ResidentBytes), mebi(w.HeapBytes), mebi(w.DiskBytes), w.Goroutines, w.CPU, w.FixesPerSecond)
		}
		fmt.Fprintf(&b, "| %s | median | %.0f | | %.0f | | | |\n", p.Name, mebi(p.Resident), mebi(p.Disk))
	}
	return b.String()
}
