package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/recovery"
	"github.com/starling-fleet/starling/loadtest/report"
)

// recoveryCommand is `bench recovery`.
func recoveryCommand(ctx context.Context, args []string) (code int, err error) {
	o := recovery.DefaultOptions()
	flags := newFlags("recovery")
	what := flags.String("what", recoveryTime, "what to measure: recovery or checkpoint-cost")
	log := flags.String("log", "local", "which log: local (starling up) or kafka (every role on its own; needs Java and Maven)")
	starling, asJSON := serverFlags(flags, &o.WorkDir)
	flags.IntVar(&o.Vehicles, "vehicles", 0, "vehicles; 0 means 100000, for checkpoint-cost as many as make one fix a second each")
	flags.Float64Var(&o.FixesPerSecond, "rate", o.FixesPerSecond, "fixes per second of the whole fleet")
	flags.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in a report")
	flags.IntVar(&o.Streams, "streams", o.Streams, "streams over which the vehicles share")
	flags.DurationVar(&o.History, "history", o.History, "how long the fleet reports before the first kill")
	flags.DurationVar(&o.Between, "between", o.Between, "how long it reports after each recovery before the next kill, and as much again at random")
	flags.IntVar(&o.Kills, "kills", o.Kills, "how often everything is killed")
	flags.DurationVar(&o.Limit, "limit", 0, "how long a recovery may take; 0 means 5s, with more than 100000 vehicles 30s")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "pairs of runs of checkpoint-cost")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before each run of checkpoint-cost")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of each run of checkpoint-cost; whole checkpoint intervals")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	if *what != recoveryTime && *what != checkpointCost {
		return exitUsage, fmt.Errorf("-what is %q: must be %s or %s", *what, recoveryTime, checkpointCost)
	}
	o.Starling, o.Args = []string{*starling}, flags.Args()
	defaults(&o, *what)
	o.Progress = progress()

	switch *log {
	case "local":
	case "kafka":
		cluster, startErr := kafkatest.Start(ctx, kafkatest.Options{Measured: true})
		if startErr != nil {
			return exitFailed, startErr
		}
		defer func() { err = errors.Join(err, cluster.Stop()) }()
		o.KafkaBrokers = cluster.Brokers()
	default:
		return exitUsage, fmt.Errorf("-log is %q: must be local or kafka", *log)
	}
	var result report.Result
	sharedBy := "Starling, its log and the load"
	if *what == checkpointCost {
		result, err = recovery.RunCost(ctx, o)
	} else {
		result, err = recovery.Run(ctx, o)
	}
	return conclude(ctx, result, err, o.Starling, sharedBy, *asJSON)
}

// What recovery measures.
const (
	recoveryTime   = "recovery"
	checkpointCost = "checkpoint-cost"
)

// defaults fills in what depends on other flags.
func defaults(o *recovery.Options, what string) {
	if o.Vehicles == 0 {
		o.Vehicles = recovery.DefaultOptions().Vehicles
		if what == checkpointCost {
			o.Vehicles = int(o.FixesPerSecond)
		}
	}
	if o.Limit == 0 {
		o.Limit = 5 * time.Second
		if o.Vehicles > 100_000 {
			o.Limit = 30 * time.Second
		}
	}
}
