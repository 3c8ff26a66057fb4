package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/drill"
)

// threeBrokers is a cluster with the settings that docs/kafka.md recommends.
var threeBrokers = kafkatest.Options{Nodes: 3, HeapMB: 512, Properties: map[string]string{"broker.session.timeout.ms": "6000"}}

// drillCommand is `bench drill`; docs/drills.md describes it.
func drillCommand(ctx context.Context, args []string) (code int, err error) {
	o := drill.DefaultOptions()
	o.Progress = os.Stderr
	flags := newFlags("drill")
	log := flags.String("log", "local", "which log: local (starling up), kafka (every role on its own; needs Java and Maven) kafka3 (likewise on three brokers, with the plan of a rollout instead of random kills) or clocks (likewise on a broker whose clock is set wrong, with devices whose clocks are wrong, instead of kills; needs a C compiler too)")
	keep := flags.Bool("keep", false, "keep the folder with the log and the processes' output")
	flags.StringVar(&o.Binary, "starling", "bin/starling", "the starling binary")
	flags.IntVar(&o.Kills, "kills", o.Kills, "how many processes are killed")
	flags.BoolVar(&o.Stop, "stop", false, "stop processes by SIGTERM, once they serve, in place of killing them")
	flags.IntVar(&o.Zombies, "zombie", 0, "how many times a tracker is stopped past its session timeout (kafka only)")
	flags.IntVar(&o.FixesPerSecond, "rate", o.FixesPerSecond, "fixes per second of the whole fleet")
	flags.DurationVar(&o.FixInterval, "interval", o.FixInterval, "device time between two fixes of a vehicle")
	flags.Float64Var(&o.Speed, "speed", o.Speed, "how many times faster than device time the fleet reports; rate, interval and speed give the number of vehicles")
	flags.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in a report")
	flags.IntVar(&o.Streams, "streams", o.Streams, "streams over which the vehicles share")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions of every topic")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "how long the fleet reports")
	flags.Float64Var(&o.Slack, "slack", 1, "multiplies how long fixes may take to be found in each phase, for a machine that is busy (kafka3 only)")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "decides what is sent and who is killed")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Args = flags.Args()
	stop, err := startLog(ctx, *log, &o)
	if err != nil {
		return exitFailed, err
	}
	defer func() {
		if stopErr := stop(); stopErr != nil {
			code, err = exitFailed, errors.Join(err, stopErr)
		}
	}()
	if o.Dir, err = os.MkdirTemp("", "starling-drill-"); err != nil {
		return exitFailed, err
	}
	account, err := drill.Run(ctx, o)
	if account != nil {
		err = errors.Join(err, writeReport(ctx, account, []string{o.Binary}, "the fleet, Starling, its log and the drill", false))
	}
	ok := err == nil && account.OK()
	if ok && !*keep {
		return exitOK, os.RemoveAll(o.Dir)
	}
	fmt.Fprintln(os.Stderr, "bench drill: the log and the processes' output are in", o.Dir)
	if !ok {
		return exitFailed, err
	}
	return exitOK, nil
}

// startLog starts what the log needs; stop ends it.
func startLog(ctx context.Context, log string, o *drill.Options) (stop func() error, err error) {
	var settings kafkatest.Options
	switch log {
	case "local":
		return func() error { return nil }, nil
	case "kafka":
	case "kafka3":
		settings = threeBrokers
		o.Kills, o.Rollout = 0, true
	case "clocks":
		return startWrongClock(ctx, o)
	default:
		return nil, fmt.Errorf("-log is %q: must be local, kafka, kafka3 or clocks", log)
	}
	settings.Measured = true
	cluster, err := kafkatest.Start(ctx, settings)
	if err != nil {
		return nil, err
	}
	o.KafkaBrokers = cluster.Brokers()
	if log == "kafka3" {
		o.Cluster = cluster
	}
	return cluster.Stop, nil
}

// startWrongClock starts a broker whose clock the drill sets.
func startWrongClock(ctx context.Context, o *drill.Options) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "starling-clock-")
	if err != nil {
		return nil, err
	}
	clock, err := kafkatest.NewClock(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	settings := clock.Options()
	settings.Measured = true
	cluster, err := kafkatest.Start(ctx, settings)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	o.KafkaBrokers, o.Kills, o.LogClock = cluster.Brokers(), 0, clock.Set
	return func() error { return errors.Join(cluster.Stop(), clock.Close(), os.RemoveAll(dir)) }, nil
}
