package main

import (
	"context"
	"os"

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
