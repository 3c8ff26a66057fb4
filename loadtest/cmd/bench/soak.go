package main

import (
	"context"

	"github.com/starling-fleet/starling/loadtest/soak"
)

// soakCommand is `bench soak`.
func soakCommand(ctx context.Context, args []string) (code int, err error) {
	o := soak.DefaultOptions()
	flags := newFlags("soak")
	starling, asJSON := serverFlags(flags, &o.WorkDir)
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time for which the load is measured")
	flags.DurationVar(&o.Silence, "silence", o.Silence, "time for which the silent fleet is measured")
	flags.DurationVar(&o.Settle, "settle", o.Settle, "time before that of each phase")
	flags.DurationVar(&o.Calibration, "calibration", o.Calibration, "time for which the sustained load is looked for")
	flags.Float64Var(&o.FixesPerSecond, "rate", 0, "fixes a second; 0 is half of what is sustained")
	flags.IntVar(&o.Streams, "streams", o.Streams, "streams that are open at a time")
	flags.IntVar(&o.VehiclesPerStream, "vehicles-per-stream", o.VehiclesPerStream, "vehicles of each stream")
	flags.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in one message")
	flags.Int64Var(&o.RetentionBytes, "retention-bytes", o.RetentionBytes, "bytes that the log keeps of tracks; of locations a quarter as many")
	flags.Float64Var(&o.Band, "band", o.Band, "share by which a window may be off its phase's median")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	r, err := soak.Run(ctx, o)
	return conclude(ctx, r, err, o.Starling, "the server and its clients", *asJSON)
}
