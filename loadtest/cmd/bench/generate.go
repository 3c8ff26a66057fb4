package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/loadtest/generate"
)

// generateCommand is `bench generate`.
func generateCommand(ctx context.Context, args []string) (code int, err error) {
	o := generate.DefaultOptions()
	flags := newFlags("generate")
	ingest := flags.String("ingest", "127.0.0.1:7600", "address of ingest's gRPC server")
	matcher := flags.String("matcher", "127.0.0.1:7601", "address of the matcher's gRPC server; empty measures acknowledgements only")
	connections := flags.Int("connections", 4, "connections over which the streams are spread")
	flags.IntVar(&o.Streams, "streams", o.Streams, "streams that are open at a time")
	flags.IntVar(&o.VehiclesPerStream, "vehicles-per-stream", o.VehiclesPerStream, "vehicles of each stream")
	flags.IntVar(&o.FixesPerReport, "fixes-per-report", o.FixesPerReport, "fixes in one message")
	flags.Float64Var(&o.FixesPerSecond, "rate", 0, "fixes a second over all streams; 0 is as many as are acknowledged")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before the measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of the measurement")
	flags.IntVar(&o.InFlight, "in-flight", o.InFlight, "unacknowledged reports of a stream at most")
	flags.IntVar(&o.Watched, "watched", o.Watched, "vehicles that are watched for how soon their fixes can be found")
	flags.DurationVar(&o.DeviceInterval, "device-interval", o.DeviceInterval, "device time between two fixes of a vehicle; 0 sends the time of sending")
	flags.StringVar(&o.VehiclePrefix, "vehicle-prefix", o.VehiclePrefix, "what vehicle ids begin with")
	flags.Int64Var(&o.Seed, "seed", o.Seed, "number from which the fleet is drawn")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	for range max(1, *connections) {
		conn, err := client.Dial(*ingest, client.DialOptions{})
		if err != nil {
			return exitUsage, err
		}
		defer conn.Close()
		o.Ingest = append(o.Ingest, conn)
	}
	if *matcher != "" {
		conn, err := client.Dial(*matcher, client.DialOptions{})
		if err != nil {
			return exitUsage, err
		}
		defer conn.Close()
		o.Fleet = conn
	}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = func(p generate.Progress) {
		fmt.Fprintf(os.Stderr, "%4s %10.0f fixes/s acknowledged, %d reports under way, %d streams broke\n",
			p.Elapsed.Round(time.Second), p.FixesPerSecond, p.UnacknowledgedNow, p.BrokenStreamsSoFar)
	}
	r, err := generate.Run(ctx, o)
	if err := errors.Join(err, writeReport(ctx, r, nil, "the load generator and, if it runs here, the server", *asJSON)); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}
