package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

type bench struct {
	opts    Options
	started int // children so far
}

// Result is what was measured, and how.
type Result struct {
	Log      string        `json:"log"`
	Note     string        `json:"note,omitempty"`
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Sizes    []Size        `json:"sizes"`
	Heap     *Heap         `json:"heap,omitempty"`
}

// Size holds the medians over all rounds for one number of fixes a report.
type Size struct {
	FixesPerReport int `json:"fixes_per_report"`
	// Acknowledged fixes a second at saturation, nothing being consumed.
	BaselineIngest float64 `json:"baseline_ingest_fixes_per_s"`
	StarlingIngest float64 `json:"starling_ingest_fixes_per_s"`
	// IngestRatio is the median of the rounds' ratios.
	IngestRatio float64 `json:"ingest_ratio"`
	// CPU of the server for each fix at that saturation.
	BaselineIngestCPU time.Duration `json:"baseline_ingest_cpu_per_fix_ns"`
	StarlingIngestCPU time.Duration `json:"starling_ingest_cpu_per_fix_ns"`
	// Sustainable is the rate at which Starling makes fixes searchable.
	Sustainable float64 `json:"sustainable_fixes_per_s"`
	// Rate is half of that, at which the end-to-end CPU is measured.
	Rate float64 `json:"rate_fixes_per_s"`
	// CPU of the server for each fix end to end.
	BaselineWholeCPU time.Duration `json:"baseline_whole_cpu_per_fix_ns"`
	StarlingWholeCPU time.Duration `json:"starling_whole_cpu_per_fix_ns"`
	// CPUAboveBaseline is the median of the rounds' differences.
	CPUAboveBaseline time.Duration `json:"cpu_above_baseline_per_fix_ns"`
	// WorstLag is the traffic, in time, that had piled up in any round.
	WorstLag time.Duration `json:"worst_lag_ns"`
	// Median latencies of Starling at Rate.
	AckP99        time.Duration `json:"ack_p99_ns"`
	SearchableP50 time.Duration `json:"searchable_p50_ns"`
	SearchableP99 time.Duration `json:"searchable_p99_ns"`
}

// Heap is what one vehicle costs in live heap.
type Heap struct {
	Vehicles    int     `json:"vehicles"`
	WindowFixes int     `json:"window_fixes"`
	TrackerB    float64 `json:"tracker_bytes_per_vehicle"`
	MatcherB    float64 `json:"matcher_bytes_per_vehicle"`
	// LogB, IngestB and OtherB are of the whole process.
	LogB    float64 `json:"log_bytes"`
	IngestB float64 `json:"ingest_bytes"`
	OtherB  float64 `json:"other_bytes"`
}

// Run measures. It takes, for each size and round, four runs of Warmup and
// Duration; nothing else should run on the machine.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := opts.Validate(); err != nil {
		return Result{}, fmt.Errorf("pipeline: %w", err)
	}
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	b := &bench{opts: opts}
	res := Result{
		Log: "local", Note: opts.Note, Rounds: opts.Rounds, Duration: opts.Duration,
	}
	if len(opts.KafkaBrokers) > 0 {
		res.Log = "kafka"
	}
	sizes := make([]rounds, len(opts.FixesPerReport))
	for i, n := range opts.FixesPerReport {
		opts.Progress(fmt.Sprintf("%s log, %d fixes a report: what can Starling sustain?", res.Log, n))
		rate, err := b.sustainable(ctx, n)
		if err != nil {
			return res, fmt.Errorf("pipeline: sustainable rate: %w", err)
		}
		sizes[i] = rounds{n: n, sustainable: rate}
	}
	for round := range opts.Rounds {
		for i := range sizes {
			opts.Progress(fmt.Sprintf("%s log, round %d of %d, %d fixes a report", res.Log, round+1, opts.Rounds, sizes[i].n))
			if err := b.round(ctx, round, &sizes[i]); err != nil {
				return res, fmt.Errorf("pipeline: %w", err)
			}
		}
	}
	for i := range sizes {
		res.Sizes = append(res.Sizes, sizes[i].medians())
	}
	if opts.HeapVehicles > 0 {
		opts.Progress(fmt.Sprintf("%s log, live heap of %d vehicles", res.Log, opts.HeapVehicles))
		heap, err := b.heap(ctx)
		if err != nil {
			return res, fmt.Errorf("pipeline: heap: %w", err)
		}
		v := float64(opts.HeapVehicles)
		res.Heap = &Heap{
			Vehicles: opts.HeapVehicles, WindowFixes: heapReports * heapFixesPerReport,
			TrackerB: heap["tracker"] / v, MatcherB: heap["matcher"] / v,
			LogB: heap["log"], IngestB: heap["ingest"] + heap["grpc"], OtherB: heap["other"],
		}
	}
	return res, nil
}

// rounds are the runs of one size.
type rounds struct {
	n                                                            int
	sustainable                                                  float64
	baselineIngest, starlingIngest, baselineWhole, starlingWhole []run
}

// round runs the four measurements once, the baseline and the real one next to each
// other and in turn first, so that drift favours neither.
func (b *bench) round(ctx context.Context, number int, s *rounds) error {
	measure := func(kind Kind, rate float64, to *[]run) error {
		r, err := b.measure(ctx, kind, s.n, rate)
		if err == nil {
			*to = append(*to, r)
			b.opts.Progress(fmt.Sprintf("  %-16s %9.0f fixes/s, %6.2f µs of CPU a fix, acknowledged in %v (p99)",
				kind, r.fixesPerSecond, report.Micros(r.cpuPerFix), r.ackLatency.P99.Round(100*time.Microsecond)))
		}
		return err
	}
	steps := []func() error{
		func() error { return measure(BaselineIngest, 0, &s.baselineIngest) },
		func() error { return measure(StarlingIngest, 0, &s.starlingIngest) },
		func() error { return measure(BaselineWhole, s.sustainable/2, &s.baselineWhole) },
		func() error { return measure(StarlingWhole, s.sustainable/2, &s.starlingWhole) },
	}
	if number%2 == 1 {
		steps[0], steps[1] = steps[1], steps[0]
		steps[2], steps[3] = steps[3], steps[2]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// medians sums up the rounds.
func (s *rounds) medians() Size {
	rate := func(r run) float64 { return r.fixesPerSecond }
	cpu := func(r run) float64 { return float64(r.cpuPerFix) }
	out := Size{
		FixesPerReport: s.n, Sustainable: s.sustainable, Rate: s.sustainable / 2,
		BaselineIngest: report.Median(s.baselineIngest, rate), StarlingIngest: report.Median(s.starlingIngest, rate),
		BaselineIngestCPU: time.Duration(report.Median(s.baselineIngest, cpu)), StarlingIngestCPU: time.Duration(report.Median(s.starlingIngest, cpu)),
		BaselineWholeCPU: time.Duration(report.Median(s.baselineWhole, cpu)), StarlingWholeCPU: time.Duration(report.Median(s.starlingWhole, cpu)),
		AckP99:        time.Duration(report.Median(s.starlingWhole, func(r run) float64 { return float64(r.ackLatency.P99) })),
		SearchableP50: time.Duration(report.Median(s.starlingWhole, func(r run) float64 { return float64(r.searchable.P50) })),
		SearchableP99: time.Duration(report.Median(s.starlingWhole, func(r run) float64 { return float64(r.searchable.P99) })),
	}
	ratios, above := make([]float64, len(s.baselineIngest)), make([]float64, len(s.baselineWhole))
	for i := range ratios {
		ratios[i] = s.starlingIngest[i].fixesPerSecond / s.baselineIngest[i].fixesPerSecond
		above[i] = float64(s.starlingWhole[i].cpuPerFix - s.baselineWhole[i].cpuPerFix)
		out.WorstLag = max(out.WorstLag, s.starlingWhole[i].lag)
	}
	same := func(x float64) float64 { return x }
	out.IngestRatio = report.Median(ratios, same)
	out.CPUAboveBaseline = time.Duration(report.Median(above, same))
	return out
}
