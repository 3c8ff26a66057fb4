package main

import (
	"context"
	"fmt"
	"os"

	"github.com/starling-fleet/starling/loadtest/history"
)

// historyCommand is `bench history`: bytes, or throughput.
func historyCommand(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 || args[0] != "bytes" {
		return exitUsage, fmt.Errorf("bench history: say what: bytes")
	}
	flags := newFlags("history bytes")
	data := flags.String("data", "../shared/data", "directory of recorded drives")
	check := flags.Bool("check", false, "exit with 3 when a set takes more than it may")
	if code, ok := parse(flags, args[1:]); !ok {
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
