package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Cost is what checkpoints cost.
type Cost struct {
	Log            string        `json:"log"`
	Vehicles       int           `json:"vehicles"`
	FixesPerSecond float64       `json:"fixes_per_second"`
	FixesPerReport int           `json:"fixes_per_report"`
	Duration       time.Duration `json:"duration_ns"`
	Rounds         []CostRound   `json:"rounds"`
}

// CostRound is one pair of runs.
type CostRound struct {
	// With and Without are the processes' CPU time for each fix with a
	// checkpoint every ten seconds and with none.
	With    time.Duration `json:"with_ns"`
	Without time.Duration `json:"without_ns"`
	// StateBytes are written for each fix.
	StateBytes float64 `json:"state_bytes_per_fix"`
}

// Share is the part of With that the checkpoints take.
func (r CostRound) Share() float64 { return float64(r.With-r.Without) / float64(r.With) }

// RunCost measures, in pairs of runs that change places every round, the CPU
// for each fix with and without checkpoints, of vehicles with full windows.
func RunCost(ctx context.Context, o Options) (Cost, error) {
	c := Cost{
		Log: "local", Vehicles: o.Vehicles,
		FixesPerSecond: o.FixesPerSecond, FixesPerReport: o.FixesPerReport, Duration: o.Duration,
	}
	if err := o.Validate(); err != nil {
		return c, fmt.Errorf("checkpoint cost: %w", err)
	}
	if o.onKafka() {
		c.Log = "kafka"
	}
	for i := range o.Rounds {
		var round CostRound
		for half := range 2 {
			with := (i+half)%2 == 0
			interval := time.Hour
			if with {
				interval = checkpointInterval
			}
			perFix, bytes, err := costOf(ctx, &o, interval)
			if err != nil {
				return c, fmt.Errorf("checkpoint cost: %w", err)
			}
			if with {
				round.With, round.StateBytes = perFix, bytes
			} else {
				round.Without = perFix
			}
		}
		o.progress("round %d of %d: %v a fix with checkpoints, %v without, %.1f %%; %.0f B of state a fix", i+1, o.Rounds, round.With, round.Without, 100*round.Share(), round.StateBytes)
		c.Rounds = append(c.Rounds, round)
	}
	return c, nil
}

// costOf runs a new server and returns its CPU time and its bytes of state for
// each fix.
func costOf(ctx context.Context, o *Options, interval time.Duration) (perFix time.Duration, bytesPerFix float64, err error) {
	s, err := newServers(ctx, o, "--tracker-checkpoint-interval", interval.String())
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	conns, err := s.connectLoad()
	if err != nil {
		return 0, 0, err
	}
	if err := fill(ctx, o, conns, windowOf(o)); err != nil {
		return 0, 0, fmt.Errorf("fill the windows: %w", err)
	}
	loading, endLoad := context.WithCancel(ctx)
	loadErr := make(chan error, 1)
	go func() { loadErr <- keepReporting(loading, o, conns) }()
	defer func() {
		endLoad()
		err = errors.Join(err, <-loadErr)
	}()
	look := func(after time.Duration) (cpu time.Duration, fixes, bytes float64) {
		if err != nil {
			return
		}
		if err = pass(ctx, after, nil); err != nil {
			return
		}
		var m map[string]float64
		if m, err = s.metrics(ctx); err != nil {
			return
		}
		cpu, err = s.cpu()
		return cpu, m["starling_tracker_fixes_total"], m["starling_tracker_checkpoint_bytes_total"]
	}
	cpu0, fixes0, bytes0 := look(o.Warmup)
	cpu1, fixes1, bytes1 := look(o.Duration)
	if err != nil {
		return 0, 0, err
	}
	fixes := fixes1 - fixes0
	if want := o.FixesPerSecond * o.Duration.Seconds(); fixes < 0.9*want {
		return 0, 0, fmt.Errorf("%.0f fixes were tracked, %.0f were to be sent: the machine does not sustain the rate", fixes, want)
	}
	return time.Duration(float64(cpu1-cpu0) / fixes), (bytes1 - bytes0) / fixes, nil
}

// windowOf is how many fixes of a vehicle a window of 30 s holds.
func windowOf(o *Options) int {
	return min(500, max(1, int(30*o.FixesPerSecond/float64(o.Vehicles))+1))
}
