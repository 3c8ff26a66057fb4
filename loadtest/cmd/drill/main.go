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

func run(ctx context.Context) (ok bool, err error) {
	o := drill.DefaultOptions()
	o.Progress = os.Stderr
	log := flag.String("log", "local", "which log: local (starling up) or kafka (every role on its own; needs Java and Maven)")
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
	flag.Uint64Var(&o.Seed, "seed", o.Seed, "decides what is sent and who is killed")
	flag.Parse()
	o.Args = flag.Args()

	switch *log {
	case "local":
	case "kafka":
		cluster, startErr := kafkatest.Start(ctx, kafkatest.Options{})
		if startErr != nil {
			return false, startErr
		}
		defer func() { err = errors.Join(err, cluster.Stop()) }()
		o.KafkaBrokers = cluster.Brokers()
	default:
		return false, fmt.Errorf("-log is %q: must be local or kafka", *log)
	}
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
