// Command drill kills Starling's processes at random under load and checks
// that nothing that was acknowledged is lost and nothing counts twice. See
// docs/drills.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/drill"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
	}
	if !ok {
		stop()
		os.Exit(1)
	}
}

// threeBrokers is a cluster with the settings that docs/kafka.md recommends.
var threeBrokers = kafkatest.Options{Nodes: 3, HeapMB: 512, Properties: map[string]string{"broker.session.timeout.ms": "6000"}}

func run(ctx context.Context) (ok bool, err error) {
	o := drill.DefaultOptions()
	o.Progress = os.Stderr
	log := flag.String("log", "local", "which log: local (starling up), kafka (every role on its own; needs Java and Maven) or kafka3 (likewise on three brokers, with the plan of a rollout instead of random kills)")
	keep := flag.Bool("keep", false, "keep the folder with the log and what the processes said")
	flag.StringVar(&o.Binary, "starling", "bin/starling", "the starling binary")
	flag.IntVar(&o.Kills, "kills", o.Kills, "how many processes are killed")
	flag.IntVar(&o.Zombies, "zombie", 0, "how many times a tracker is stopped past its session timeout (kafka only)")
	flag.IntVar(&o.FixesPerSecond, "rate", o.FixesPerSecond, "fixes per second of the whole fleet")
	flag.DurationVar(&o.FixInterval, "interval", o.FixInterval, "device time between two fixes of a vehicle")
	flag.Float64Var(&o.Speed, "speed", o.Speed, "how many times faster than device time the fleet reports; rate, interval and speed give the number of vehicles")
	flag.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in a report")
	flag.IntVar(&o.Streams, "streams", o.Streams, "streams over which the vehicles share")
	flag.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions of every topic")
	flag.DurationVar(&o.Duration, "duration", o.Duration, "how long the fleet reports")
	flag.Float64Var(&o.Slack, "slack", 1, "multiplies how long fixes may take to be found in each phase, for a machine that is busy (kafka3 only)")
	flag.Uint64Var(&o.Seed, "seed", o.Seed, "decides what is sent and who is killed")
	flag.Parse()
	o.Args = flag.Args()

	stop, err := choose(ctx, *log, &o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if o.Dir, err = os.MkdirTemp("", "starling-drill-"); err != nil {
		return false, err
	}
	account, err := drill.Run(ctx, o)
	ok = err == nil && account.OK()
	if account != nil {
		fmt.Print(account)
	}
	if ok && !*keep {
		return ok, os.RemoveAll(o.Dir)
	}
	fmt.Fprintln(os.Stderr, "drill: the log and what the processes said are in", o.Dir)
	return ok, err
}

// choose starts what the log needs; stop ends it.
func choose(ctx context.Context, log string, o *drill.Options) (stop func() error, err error) {
	var settings kafkatest.Options
	switch log {
	case "local":
		return func() error { return nil }, nil
	case "kafka":
	case "kafka3":
		settings = threeBrokers
		o.Kills, o.Rollout = 0, true
	default:
		return nil, fmt.Errorf("-log is %q: must be local, kafka or kafka3", log)
	}
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
