package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/loadtest/ridedrill"
)

// ridesDrillCommand is `bench rides-drill`; docs/drills.md describes it.
func ridesDrillCommand(ctx context.Context, args []string) (code int, err error) {
	return ridesDrill(ctx, "rides-drill", "local", ridedrill.DefaultOptions(), args)
}

// rideEventsDrillCommand is `bench ride-events-drill`: the same with many followers
// whose connections break.
func rideEventsDrillCommand(ctx context.Context, args []string) (code int, err error) {
	return ridesDrill(ctx, "ride-events-drill", "kafka", ridedrill.DefaultFollowing(), args)
}

func ridesDrill(ctx context.Context, name, defaultLog string, o ridedrill.Options, args []string) (code int, err error) {
	o.Progress = os.Stderr
	flags := newFlags(name)
	log := flags.String("log", defaultLog, "which log: local (starling up) or kafka (every role on its own; needs Java and Maven)")
	keep := flags.Bool("keep", false, "keep the folder with the log and the processes' output")
	drillFlags(flags, &o)
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Args = flags.Args()
	brokers, stop, err := ridesLog(ctx, *log)
	if err != nil {
		return exitFailed, err
	}
	defer func() {
		if stopErr := stop(); stopErr != nil {
			code, err = exitFailed, errors.Join(err, stopErr)
		}
	}()
	o.KafkaBrokers = brokers
	if o.Dir, err = os.MkdirTemp("", "starling-"+name+"-"); err != nil {
		return exitFailed, err
	}
	account, err := ridedrill.Run(ctx, o)
	if account != nil {
		err = errors.Join(err, writeReport(ctx, account, []string{o.Binary}, "the clients, Starling, its log and the drill", false))
	}
	ok := err == nil && account.OK()
	if ok && !*keep {
		return exitOK, os.RemoveAll(o.Dir)
	}
	fmt.Fprintf(os.Stderr, "bench %s: the log and the processes' output are in %s\n", name, o.Dir)
	if !ok {
		return exitFailed, err
	}
	return exitOK, nil
}

// drillFlags sets o by flags.
func drillFlags(flags *flag.FlagSet, o *ridedrill.Options) {
	flags.StringVar(&o.Binary, "starling", "bin/starling", "the starling binary")
	flags.Int64Var(&o.Proposals, "proposals", o.Proposals, "after how many proposals the riders stop")
	flags.DurationVar(&o.Limit, "limit", o.Limit, "after how long the riders stop in any case")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions of every topic")
	flags.IntVar(&o.Vehicles, "vehicles", o.Vehicles, "how many vehicles there are")
	flags.IntVar(&o.Riders, "riders", o.Riders, "how many riders ask for one ride after another")
	flags.IntVar(&o.Followers, "followers", o.Followers, "how many others follow one ride after another, at one node after another")
	flags.DurationVar(&o.Connected, "connected", o.Connected, "about how long a follower's connection lasts")
	flags.IntVar(&o.Owners, "owners", o.Owners, "how many processes own rides and answer about them (Kafka)")
	flags.DurationVar(&o.Offer, "offer", o.Offer, "how long a driver may consider an offer; 0 assigns at once")
	flags.DurationVar(&o.MatchInterval, "match-interval", o.MatchInterval, "pause of the owners between two rounds of matching")
	flags.DurationVar(&o.Decide, "decide", o.Decide, "how long a proposal may wait for its tracker")
	flags.BoolVar(&o.RaiseEpoch, "raise-epoch", o.RaiseEpoch, "kill every process and raise the epoch once, at half of -limit (Kafka)")
	flags.DurationVar(&o.KillEvery, "kill-every", o.KillEvery, "mean time between two kills of an owner or a tracker (with followers, of an owner); 0 means never")
	flags.DurationVar(&o.SleepEvery, "sleep-every", o.SleepEvery, "mean time between two suspensions of one (SIGSTOP); 0 means never")
	flags.DurationVar(&o.Asleep, "asleep", o.Asleep, "how long a process is suspended; the session timeout on Kafka is 6 s")
	flags.DurationVar(&o.Away, "away", o.Away, "about how long what was killed stays away; 0 starts it again at once")
	flags.StringVar(&o.RedisServer, "redis-server", o.RedisServer, "path of redis-server, which then carries the owners' news; empty means none")
	flags.DurationVar(&o.RedisEvery, "redis-every", o.RedisEvery, "mean time between two times at which Redis is flushed, killed or, with -away, suspended, in turn")
	flags.Float64Var(&o.MinLost, "min-lost", o.MinLost, "share of the proposals that must lose")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "decides what clients do and who is disturbed")
}

// ridesLog starts what the log needs; stop ends it.
func ridesLog(ctx context.Context, log string) (brokers []string, stop func() error, err error) {
	switch log {
	case "local":
		return nil, func() error { return nil }, nil
	case "kafka":
		cluster, err := kafkatest.Start(ctx, kafkatest.Options{Measured: true})
		if err != nil {
			return nil, nil, err
		}
		return cluster.Brokers(), cluster.Stop, nil
	}
	return nil, nil, fmt.Errorf("-log is %q: must be local or kafka", log)
}

// ridesLatencyCommand is `bench rides-latency`.
func ridesLatencyCommand(ctx context.Context, args []string) (code int, err error) {
	o := ridedrill.DefaultLatencyOptions()
	flags := newFlags("rides-latency")
	log := flags.String("log", "local", "which log: local (starling up) or kafka (every role on its own; needs Java and Maven)")
	flags.StringVar(&o.Binary, "starling", "bin/starling", "the starling binary")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions of every topic")
	flags.IntVar(&o.Vehicles, "vehicles", o.Vehicles, "moving vehicles, each with a fix a second")
	flags.Float64Var(&o.RidesPerSecond, "rate", o.RidesPerSecond, "rides that are asked for in a second")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before what is measured")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "how long is measured")
	flags.DurationVar(&o.Held, "held", o.Held, "how long an assigned ride lasts")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "decides where vehicles and riders are")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Args = flags.Args()
	brokers, stop, err := ridesLog(ctx, *log)
	if err != nil {
		return exitFailed, err
	}
	defer func() {
		if stopErr := stop(); stopErr != nil {
			code, err = exitFailed, errors.Join(err, stopErr)
		}
	}()
	o.KafkaBrokers = brokers
	if o.Dir, err = os.MkdirTemp("", "starling-rides-latency-"); err != nil {
		return exitFailed, err
	}
	defer func() { _ = os.RemoveAll(o.Dir) }()
	result, err := ridedrill.Measure(ctx, o)
	if result == nil {
		return exitFailed, err
	}
	return conclude(ctx, result, err, []string{o.Binary}, "the clients, Starling and its log", *asJSON)
}
