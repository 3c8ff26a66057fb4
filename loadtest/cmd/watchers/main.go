// Watchers opens many calls of WatchArea on a server of its own, over a fleet
// that keeps reporting, and prints how long a change takes to its clients and
// what a call costs in memory, as a table or JSON. `make bench-watchers` runs it.
//
// Exit codes: 0 measured, and every promise was kept; 1 the run failed; 2 wrong
// usage; 3 a promise was missed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/loadtest/watchers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "watchers:", err)
	}
	os.Exit(code)
}

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
	begun := time.Now()
	o.Progress = func(s string) { fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(begun).Round(time.Second), s) }
	r, err := watchers.Run(ctx, o)
	if err != nil {
		return 1, err
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		_ = out.Encode(r)
	} else {
		fmt.Print(&r)
	}
	if len(r.Faults) > 0 {
		return 3, nil
	}
	return 0, nil
}
