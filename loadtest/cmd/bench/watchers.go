package main

import (
	"context"

	"github.com/starling-fleet/starling/loadtest/watchers"
)

// watchersCommand is `bench watchers`.
func watchersCommand(ctx context.Context, args []string) (code int, err error) {
	o := watchers.DefaultOptions()
	flags := newFlags("watchers")
	starling, asJSON := serverFlags(flags, &o.WorkDir)
	flags.IntVar(&o.Watchers, "watchers", o.Watchers, "calls of WatchArea")
	flags.IntVar(&o.Areas, "areas", o.Areas, "areas, which the watchers take turns at")
	flags.IntVar(&o.VehiclesPerArea, "vehicles-per-area", o.VehiclesPerArea, "vehicles in each area")
	flags.DurationVar(&o.ChangePeriod, "change-period", o.ChangePeriod, "time between two changes in an area")
	flags.DurationVar(&o.MinInterval, "min-interval", o.MinInterval, "the least time between two updates that clients ask for")
	flags.IntVar(&o.StreamsPerConnection, "streams-per-connection", o.StreamsPerConnection, "calls that share a connection")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before the measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of the measurement")
	flags.DurationVar(&o.MaxP99, "max-p99", o.MaxP99, "longest time from a fix to its clients, for 99 in 100")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	r, err := watchers.Run(ctx, o)
	return measured(ctx, &r, err, o.Starling, "the server, the fleet and the watchers", *asJSON)
}
