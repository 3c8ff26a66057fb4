// Command bench measures Starling, disturbs it and puts load on it, by one
// subcommand for each; `bench help` lists them. What measures prints a report
// (package loadtest/report) with the machine and the measured build, as text or
// with -json as JSON.
//
// Exit codes: 0 done; 1 the run failed, or a drill or limit did not hold; 2
// wrong usage; 3 a goal was missed (`pipeline` and `nearest` only with -check).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/loadtest/report"
)

// Exit codes.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitMissed
)

// subcommand is one of bench's.
type subcommand struct {
	name, summary string
	run           func(ctx context.Context, args []string) (code int, err error)
}

func subcommands() []subcommand {
	return []subcommand{
		{"pipeline", "Starling beside the baseline pipeline, on the local log and on Kafka", pipelineCommand},
		{"nearest", "searches for the nearest of a moving fleet, beside Redis", nearestCommand},
		{"watchers", "many calls of WatchArea: time from a change to its clients, memory for each", watchersCommand},
		{"generate", "reports of a made-up fleet for a server that runs already", generateCommand},
		{"overload", "ten times the sustainable load beside hostile clients", overloadCommand},
		{"hostile", "attacks by raw frames beside an honest client, and what each may cost", hostileCommand},
		{"drill", "random kills under load, and a check of the account", drillCommand},
		{"rides-drill", "riders who fight for a few vehicles while owners and trackers are killed, and a check of the log", ridesDrillCommand},
		{"ride-events-drill", "followers of rides whose connections break while nodes and Redis are killed, and a check of what they were sent", rideEventsDrillCommand},
		{"rides-latency", "how soon a ride is assigned a vehicle, under a moving fleet", ridesLatencyCommand},
		{"ride-events", "how long a position takes to 10,000 subscribers of rides and what each costs, beside Centrifugo", rideEventsCommand},
		{"soak", "whether memory and disk stay flat under load, and with a silent fleet", soakCommand},
		{"silence", "what vehicles cost that report no more, and invented ones", silenceCommand},
		{"recovery", "how soon a killed fleet is served again, and what checkpoints cost", recoveryCommand},
		{"history-bytes", "bytes per fix of recorded drives in history's sinks", historyBytesCommand},
		{"history-throughput", "fixes a second from a filled log into a sink of history", historyThroughputCommand},
		{"history-drill", "random kills of Starling and ClickHouse while a recording goes into history, and a check of every fix", historyDrillCommand},
		{"history-query", "how long a vehicle's whole day takes from history, among 25,000,000 fixes", historyQueryCommand},
		{serveName, "(a child of pipeline) the baseline, or Starling's ingest alone", serveCommand},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the subcommand that args begin with and returns the exit code.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stderr)
		if len(args) == 0 {
			return exitUsage
		}
		return exitOK
	}
	for _, c := range subcommands() {
		if c.name != args[0] {
			continue
		}
		code, err := c.run(ctx, args[1:])
		if err != nil {
			_, _ = fmt.Fprintf(stderr, "bench %s: %v\n", c.name, err)
		}
		return code
	}
	_, _ = fmt.Fprintf(stderr, "bench: unknown subcommand %q\n", args[0])
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	_, _ = fmt.Fprint(w, "usage: bench SUBCOMMAND [flags]; bench SUBCOMMAND -h lists the flags\n\n")
	for _, c := range subcommands() {
		_, _ = fmt.Fprintf(w, "  %-18s %s\n", c.name, c.summary)
	}
}

// newFlags returns the flags of a subcommand.
func newFlags(name string) *flag.FlagSet {
	return flag.NewFlagSet("bench "+name, flag.ContinueOnError)
}

// serverFlags adds the flags of subcommands that start a server of their own.
func serverFlags(flags *flag.FlagSet, workDir *string) (starling *string, asJSON *bool) {
	flags.StringVar(workDir, "work-dir", "", "where the local log is put; empty means the system's temporary folder")
	return flags.String("starling", "bin/starling", "the starling binary"), flags.Bool("json", false, "print JSON")
}

// parse parses args. If it returns false, the subcommand ends with the exit
// code; flag has printed why.
func parse(flags *flag.FlagSet, args []string) (code int, ok bool) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, false
	case err != nil:
		return exitUsage, false
	}
	return exitOK, true
}

// progress returns a function that writes on standard error how far a run is,
// each time with the time since the call.
func progress() func(string) {
	begun := time.Now()
	return func(s string) { fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(begun).Round(time.Second), s) }
}

// conclude writes the report of what a command has measured before it ended with
// err, and returns its exit code: a bar that was missed is a failure too.
func conclude(ctx context.Context, result report.Result, err error, starling []string, sharedBy string, asJSON bool) (int, error) {
	err = errors.Join(err, writeReport(ctx, result, starling, sharedBy, asJSON))
	if err != nil || len(result.Misses()) > 0 {
		return exitFailed, err
	}
	return exitOK, nil
}

// measured is the end of a subcommand that measures what has goals: a run that failed
// has no report, and a goal that was missed is told from a failure by the exit code.
func measured(ctx context.Context, result report.Result, err error, starling []string, sharedBy string, asJSON bool) (int, error) {
	if err == nil {
		err = writeReport(ctx, result, starling, sharedBy, asJSON)
	}
	switch {
	case err != nil:
		return exitFailed, err
	case len(result.Misses()) > 0:
		return exitMissed, nil
	}
	return exitOK, nil
}

// writeReport writes the report of a result, also of an incomplete one.
func writeReport(ctx context.Context, result report.Result, starling []string, sharedBy string, asJSON bool) error {
	machine := report.ThisMachine(context.WithoutCancel(ctx), starling, sharedBy)
	command := append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...)
	r := report.New(command, machine, result)
	if asJSON {
		return r.WriteJSON(os.Stdout)
	}
	return r.WriteText(os.Stdout)
}
