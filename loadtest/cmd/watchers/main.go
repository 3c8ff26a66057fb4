// Watchers opens many calls of WatchArea on a server of its own, over a fleet
// that keeps reporting, and prints how long a change takes to its clients and
// what a call costs in memory, as a table or JSON. `make bench-watchers` runs it.
//
// Exit codes: 0 measured, and every promise was kept; 1 the run failed; 2 wrong
// usage; 3 a promise was missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/starling-fleet/starling/loadtest/report"
	"github.com/starling-fleet/starling/loadtest/watchers"
)

func main() { report.Main("watchers", run) }

func run(ctx context.Context, args []string) (code int, err error) {
	o := watchers.DefaultOptions()
	flags := flag.NewFlagSet("watchers", flag.ContinueOnError)
	starling := flags.String("starling", o.Starling[0], "the starling binary")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the local log is put; empty means the system's temporary folder")
	flags.IntVar(&o.Watchers, "watchers", o.Watchers, "calls of WatchArea")
	flags.IntVar(&o.Areas, "areas", o.Areas, "areas, which the watchers take turns at")
	flags.IntVar(&o.VehiclesPerArea, "vehicles-per-area", o.VehiclesPerArea, "vehicles in each area")
	flags.DurationVar(&o.ChangePeriod, "change-period", o.ChangePeriod, "time between two changes in an area")
	flags.DurationVar(&o.MinInterval, "min-interval", o.MinInterval, "the least time between two updates that clients ask for")
	flags.IntVar(&o.StreamsPerConnection, "streams-per-connection", o.StreamsPerConnection, "calls that share a connection")
	flags.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before the measurement")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "time of the measurement")
	flags.DurationVar(&o.MaxP99, "max-p99", o.MaxP99, "longest time from a fix to its clients, for 99 in 100")
	asJSON := flags.Bool("json", false, "print JSON")
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said why
	}
	o.Starling = []string{*starling}
	if err := o.Validate(); err != nil {
		return 2, err
	}
	o.Progress = report.Progress()
	r, err := watchers.Run(ctx, o)
	if err != nil {
		return 1, err
	}
	if *asJSON {
		_ = report.JSON(os.Stdout, r)
	} else {
		fmt.Print(&r)
	}
	if len(r.Faults) > 0 {
		return 3, nil
	}
	return 0, nil
}
