package main

import (
	"context"
	"errors"
	"os"
	"runtime/pprof"
	"time"

	"github.com/starling-fleet/starling/loadtest/history"
	"github.com/starling-fleet/starling/loadtest/historydrill"
)

// historyBytesCommand is `bench history-bytes`.
func historyBytesCommand(ctx context.Context, args []string) (code int, err error) {
	flags := newFlags("history-bytes")
	data := flags.String("data", "../shared/data", "directory of recorded drives")
	check := flags.Bool("check", false, "exit with 3 when a set takes more than it may")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	used, err := history.Bytes(ctx, *data)
	if err != nil {
		return exitFailed, err
	}
	if !history.Print(os.Stdout, used) && *check {
		return exitMissed, nil
	}
	return exitOK, nil
}

// historyThroughputCommand is `bench history-throughput`.
func historyThroughputCommand(ctx context.Context, args []string) (code int, err error) {
	o := history.DefaultThroughputOptions()
	flags := newFlags("history-throughput")
	flags.StringVar(&o.Sink, "sink", o.Sink, "lake, clickhouse or clickhouse-rollups")
	flags.StringVar(&o.WorkDir, "work-dir", "", "where the log is put, and used again when it is there; empty means the system's temporary folder")
	flags.IntVar(&o.Vehicles, "vehicles", o.Vehicles, "vehicles of the fleet; each reports one fix a second")
	flags.IntVar(&o.Seconds, "seconds", o.Seconds, "how long the fleet has driven: vehicles times seconds are the fixes that tracks is filled with")
	flags.DurationVar(&o.Duration, "duration", o.Duration, "longest time of the measurement, which ends near the end of tracks")
	profile := flags.String("cpuprofile", "", "file for a CPU profile")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	if err := o.Validate(); err != nil {
		return exitUsage, err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return exitFailed, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return exitFailed, err
		}
		defer pprof.StopCPUProfile()
	}
	o.Progress = progress()
	r, err := history.MeasureThroughput(ctx, o)
	if r == nil {
		return exitFailed, err
	}
	return measured(ctx, r, err, nil, "the role, the log's reads and the sink, with ClickHouse's engine", *asJSON)
}

// historyDrillCommand is `bench history-drill`.
func historyDrillCommand(ctx context.Context, args []string) (code int, err error) {
	o := historydrill.DefaultOptions()
	flags := newFlags("history-drill")
	starling := flags.String("starling", "bin/starling", "the starling binary")
	data := flags.String("data", "../shared/data/fleet/capmetro.csv.gz", "recording to send (CSV.gz)")
	flags.IntVar(&o.Kills, "kills", o.Kills, "how many processes are killed, Starling or ClickHouse by chance")
	flags.DurationVar(&o.Away, "away", o.Away, "how long ClickHouse stays away once")
	flags.DurationVar(&o.MaxLag, "max-lag", 0, "history.max_lag, shorter than -away (and a minute at least): then ClickHouse is given up for what it has not taken, which must be on record")
	flags.IntVar(&o.Partitions, "partitions", o.Partitions, "partitions of the log")
	flags.DurationVar(&o.Interval, "interval", o.Interval, "how long history gathers rows")
	flags.DurationVar(&o.Patience, "patience", o.Patience, "how long to wait at the end until everything is kept")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "decides who is killed, and when")
	asJSON := flags.Bool("json", false, "print JSON")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	o.Starling, o.Progress = []string{*starling}, progress()
	if o.Fixes, err = historydrill.ReadCSV(*data); err != nil {
		return exitUsage, err
	}
	r, err := historydrill.Run(ctx, o)
	if r == nil {
		return exitFailed, err
	}
	return conclude(ctx, r, err, o.Starling, "Starling, ClickHouse and the drill", *asJSON)
}

// historyQueryCommand is `bench history-query`.
func historyQueryCommand(ctx context.Context, args []string) (code int, err error) {
	flags := newFlags("history-query")
	var cfg history.QueryConfig
	flags.StringVar(&cfg.Dir, "dir", "", "directory that keeps what was filled, so that it is filled once")
	in := flags.String("store", "lake", "lake or clickhouse")
	flags.IntVar(&cfg.Vehicles, "vehicles", 289, "vehicles")
	flags.IntVar(&cfg.Hours, "hours", 24, "hours that they drive at 1 Hz")
	flags.IntVar(&cfg.Partitions, "partitions", 12, "partitions")
	flags.DurationVar(&cfg.Batch, "batch", time.Hour, "time of a partition that a batch has, an hour at most: 5m is what the lake has before its files are joined")
	flags.IntVar(&cfg.Asks, "n", 100, "tracks that are asked for, one at a time")
	flags.BoolVar(&cfg.Cold, "cold", false, "empty the page cache before each, as root")
	if code, ok := parse(flags, args); !ok {
		return code, nil
	}
	cfg.ClickHouse = *in == "clickhouse"
	if cfg.Dir == "" || !cfg.ClickHouse && *in != "lake" || cfg.Batch < time.Second || cfg.Batch > time.Hour || cfg.Vehicles < cfg.Partitions || cfg.Hours < 1 || cfg.Asks < 1 {
		return exitUsage, errors.New("history-query: -dir must be set, -store be lake or clickhouse, -batch between 1s and 1h, -vehicles as many as -partitions, -hours and -n positive")
	}
	if err := history.Query(ctx, cfg, os.Stdout); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}
