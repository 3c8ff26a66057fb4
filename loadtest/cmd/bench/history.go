package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/starling-fleet/starling/loadtest/history"
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
