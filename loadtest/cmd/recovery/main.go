// Recovery measures how soon after a kill a fleet is restored and served, or
// what checkpoints cost, and prints a table or JSON. See docs/drills.md.
//
// Exit codes: 0 within the limit; 1 not, or something failed; 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/recovery"
	"github.com/starling-fleet/starling/loadtest/report"
)

func main() { report.Main("recovery", run) }

func run(ctx context.Context, args []string) (code int, err error) {
	o := recovery.DefaultOptions()
	flags := flag.NewFlagSet("recovery", flag.ContinueOnError)
	what := flags.String("what", "recovery", "what to measure: recovery or checkpoint-cost")
	log := flags.String("log", "local", "which log: local (starling up) or kafka (every role on its own; needs Java and Maven)")
	starling := flags.String("starling", "bin/starling", "the starling binary")
	asJSON := flags.Bool("json", false, "print JSON")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the local log is put; empty means the system's temporary folder")
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
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said why
	}
	o.Starling, o.Args = []string{*starling}, flags.Args()
	defaults(&o, *what)
	o.Progress = report.Progress()

	switch *log {
	case "local":
	case "kafka":
		cluster, err := kafkatest.Start(ctx, kafkatest.Options{})
		if err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, cluster.Stop()) }()
		o.KafkaBrokers = cluster.Brokers()
	default:
		return 2, fmt.Errorf("-log is %q: must be local or kafka", *log)
	}
	switch *what {
	case "recovery":
		r, err := recovery.Run(ctx, o)
		return show(r, r.OK(), *asJSON, err)
	case "checkpoint-cost":
		r, err := recovery.RunCost(ctx, o)
		return show(r, r.OK(), *asJSON, err)
	}
	return 2, fmt.Errorf("-what is %q: must be recovery or checkpoint-cost", *what)
}

// defaults fills in what depends on other flags.
func defaults(o *recovery.Options, what string) {
	if o.Vehicles == 0 {
		o.Vehicles = recovery.DefaultOptions().Vehicles
		if what == "checkpoint-cost" {
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

// show prints a result, also an incomplete one.
func show(result fmt.Stringer, ok, asJSON bool, err error) (int, error) {
	if asJSON {
		err = errors.Join(err, report.JSON(os.Stdout, result))
	} else {
		fmt.Print(result)
	}
	if err != nil || !ok {
		return 1, err
	}
	return 0, nil
}
