package main

import (
	"context"
	"errors"
	"strings"

	"github.com/starling-fleet/starling/loadtest/nearest"
)

// nearestCommand is `bench nearest`.
func nearestCommand(ctx context.Context, args []string) (code int, err error) {
	o := nearest.DefaultOptions()
	flags := newFlags("nearest")
	starling := flags.String("starling", o.Starling[0], "the starling binary")
	flags.StringVar(&o.Redis, "redis", o.Redis, "the redis-server binary (Debian: apt-get install redis-server); empty leaves Redis out")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the servers keep their data; empty means the system's temporary folder")
	flags.IntVar(&o.Vehicles, "vehicles", o.Vehicles, "size of the fleet")
	flags.IntVar(&o.UpdatesPerSecond, "updates", o.UpdatesPerSecond, "position updates a second")
	flags.IntVar(&o.Connections, "connections", o.Connections, "connections to search on")
	flags.Float64Var(&o.SideM, "side", o.SideM, "side of the square that the fleet drives in, in metres")
	flags.Float64Var(&o.RadiusM, "radius", o.RadiusM, "radius of a search, in metres")
	flags.IntVar(&o.Results, "results", o.Results, "vehicles wanted of a search")
	flags.IntVar(&o.RedisPipeline, "redis-pipeline", o.RedisPipeline, "GEOADD sent at a time")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "how often everything is measured")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before each measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of each measurement")
	flags.Float64Var(&o.OpenLoopPerSecond, "rate", 0, "searches a second of the open loop; 0 means what Redis can just sustain, which is looked for")
	layouts := flags.String("layouts", "", "uniform, downtown, onespot; empty means all")
	flags.StringVar(&o.Profile, "profile", "", "folder for Starling's CPU profiles; empty takes none")
	asJSON := flags.Bool("json", false, "print JSON")
	check := flags.Bool("check", false, "exit with 3 when a promise is missed")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if *layouts != "" {
		o.Layouts = strings.Split(*layouts, ",")
	}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	r, err := nearest.Run(ctx, o)
	if err := errors.Join(err, writeReport(ctx, &r, o.Starling, "the servers and the load generator", *asJSON)); err != nil {
		return exitFailed, err
	}
	if *check && len(r.Misses()) > 0 {
		return exitMissed, nil
	}
	return exitOK, nil
}
