package main

import (
	"context"

	"github.com/starling-fleet/starling/loadtest/silence"
)

// silenceCommand is `bench silence`.
func silenceCommand(ctx context.Context, args []string) (code int, err error) {
	o := silence.DefaultOptions()
	flags := newFlags("silence")
	flags.IntVar(&o.Vehicles, "vehicles", o.Vehicles, "vehicles that report and then fall silent")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions that share them")
	flags.IntVar(&o.Reports, "reports", o.Reports, "reports of each vehicle, one a second; 1 makes them invented ones")
	flags.DurationVar(&o.For, "for", o.For, "stream time of silence")
	flags.DurationVar(&o.CheckpointInterval, "checkpoint-interval", o.CheckpointInterval, "stream time between two checkpoints")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	r, err := silence.Run(ctx, o)
	if err != nil {
		return exitFailed, err
	}
	if err := writeReport(ctx, r, nil, "the step alone, in this process", *asJSON); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}
