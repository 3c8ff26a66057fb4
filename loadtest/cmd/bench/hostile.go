package main

import (
	"context"
	"strings"

	"github.com/starling-fleet/starling/loadtest/hostile"
)

// hostileCommand is `bench hostile`.
func hostileCommand(ctx context.Context, args []string) (code int, err error) {
	o := hostile.DefaultOptions()
	flags := newFlags("hostile")
	starling := flags.String("starling", "bin/starling", "the starling binary")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the local log is put; empty means the system's temporary folder")
	flags.IntVar(&o.Fleet, "fleet", o.Fleet, "vehicles that the matcher knows")
	flags.BoolVar(&o.Short, "short", false, "fewer and smaller attacks, all against one process")
	only := flags.String("only", "", "attacks to run, by name, with semicolons between")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling = []string{*starling}
	if *only != "" {
		o.Only = strings.Split(*only, ";")
	}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	o.Progress = progress()
	r, err := hostile.Run(ctx, o)
	if r == nil {
		return exitFailed, err
	}
	return conclude(ctx, r, err, o.Starling, "the server and its attackers", *asJSON)
}
