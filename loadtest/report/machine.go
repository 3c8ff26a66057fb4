// Package report is what the commands that measure have in common.
package report

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main runs a command until it ends or is interrupted, and ends the process with
// its exit code.
func Main(name string, run func(ctx context.Context, args []string) (code int, err error)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	os.Exit(code)
}

// Progress tells on standard error how far a run has got, each time with the
// time since the call.
func Progress() func(string) {
	begun := time.Now()
	return func(s string) { fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(begun).Round(time.Second), s) }
}

// JSON writes a result for people and programs.
func JSON(w io.Writer, result any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(result)
}
