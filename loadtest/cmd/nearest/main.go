// Nearest measures searches over a moving fleet on Starling and on Redis, side
// by side, and prints a table with the promised bounds, or JSON. `make
// bench-nearest` runs it.
//
// Exit codes: 0 measured; 1 the run failed; 2 wrong usage; 3 with -check: a
// promise was missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/starling-fleet/starling/loadtest/nearest"
	"github.com/starling-fleet/starling/loadtest/report"
)

func main() { report.Main("nearest", run) }

func run(ctx context.Context, args []string) (code int, err error) {
	o := nearest.DefaultOptions()
	flags := flag.NewFlagSet("nearest", flag.ContinueOnError)
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
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said why
	}
	o.Starling = []string{*starling}
	if *layouts != "" {
		o.Layouts = strings.Split(*layouts, ",")
	}
	if err := o.Validate(); err != nil {
		return 2, err
	}
	o.Progress = report.Progress()
	r, err := nearest.Run(ctx, o)
	if *asJSON {
		_ = report.JSON(os.Stdout, r)
	} else {
		fmt.Print(&r)
	}
	if err != nil {
		return 1, err
	}
	if *check && len(r.Misses()) > 0 {
		return 3, nil
	}
	return 0, nil
}
