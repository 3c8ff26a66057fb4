package main

import (
	"context"

	"github.com/starling-fleet/starling/loadtest/overload"
)

// overloadCommand is `bench overload`.
func overloadCommand(ctx context.Context, args []string) (code int, err error) {
	o := overload.DefaultOptions()
	flags := newFlags("overload")
	starling, asJSON := serverFlags(flags, &o.WorkDir)
	flags.DurationVar(&o.Calibration, "calibration", o.Calibration, "time for which the sustainable load is looked for")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of the overload")
	flags.Float64Var(&o.Factor, "factor", o.Factor, "offered load in sustainable loads")
	flags.IntVar(&o.StreamsPerLoad, "streams-per-load", o.StreamsPerLoad, "streams that offer one sustainable load")
	flags.IntVar(&o.VehiclesPerStream, "vehicles-per-stream", o.VehiclesPerStream, "vehicles of each of those streams")
	flags.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in one message")
	flags.IntVar(&o.InFlight, "in-flight", o.InFlight, "unacknowledged reports of a stream at most")
	flags.IntVar(&o.IdleStreams, "idle-streams", o.IdleStreams, "silent streams")
	flags.IntVar(&o.UnreadStreams, "unread-streams", o.UnreadStreams, "streams that never read their acknowledgements")
	flags.IntVar(&o.GarbageSenders, "garbage-senders", o.GarbageSenders, "senders of garbage and oversized messages")
	flags.IntVar(&o.HonestVehicles, "honest-vehicles", o.HonestVehicles, "vehicles of the honest fleet")
	flags.DurationVar(&o.HonestPeriod, "honest-period", o.HonestPeriod, "time between two fixes of an honest vehicle")
	flags.Int64Var(&o.ServerBytes, "server-bytes", o.ServerBytes, "the server's ingest.limits.server_bytes")
	flags.DurationVar(&o.MaxHonestP99, "max-honest-p99", o.MaxHonestP99, "longest time to an honest report's acknowledgement, for 99 in 100")
	flags.DurationVar(&o.MaxSearchP99, "max-search-p99", o.MaxSearchP99, "longest time of a search, for 99 in 100")
	flags.DurationVar(&o.SettleTimeout, "settle-timeout", o.SettleTimeout, "longest wait for the last acknowledgements and for trackers without progress")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	r, err := overload.Run(ctx, o)
	return conclude(ctx, r, err, o.Starling, "the server and its clients", *asJSON)
}
