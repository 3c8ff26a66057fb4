package main

import (
	"context"

	"github.com/starling-fleet/starling/loadtest/rideevents"
)

// rideEventsCommand is `bench ride-events`.
func rideEventsCommand(ctx context.Context, args []string) (code int, err error) {
	o := rideevents.DefaultOptions()
	flags := newFlags("ride-events")
	starling, asJSON := serverFlags(flags, &o.WorkDir)
	flags.StringVar(&o.Centrifugo, "centrifugo", "", "path of a Centrifugo to measure too, in turns; empty for none")
	flags.StringVar(&o.Redis, "redis-server", o.Redis, "path of redis-server, of which each server has its own; empty for none")
	flags.IntVar(&o.Subscribers, "subscribers", o.Subscribers, "subscribers, each of a ride with a vehicle of its own")
	flags.DurationVar(&o.Period, "period", o.Period, "time between two positions of a vehicle")
	flags.IntVar(&o.Connections, "connections", o.Connections, "connections of the subscribers")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "how often each server is measured")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before the measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of the measurement")
	flags.DurationVar(&o.MaxP99, "max-p99", o.MaxP99, "longest time from a report to its subscriber, for 99 in 100")
	flags.Float64Var(&o.MaxCPURatio, "max-cpu-ratio", o.MaxCPURatio, "most that a delivery may cost in CPU, of what it costs Centrifugo")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	result, err := rideevents.Run(ctx, o)
	return measured(ctx, result, err, o.Starling, "the server, Redis, the fleet and the subscribers", *asJSON)
}
