// Package conform is the command that judges clients of the ingest service
// (docs/conformance.md).
package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/internal/conformance"
)

// World is what the command is given by those above it.
type World struct {
	Out, Err io.Writer
	Environ  []string
	// Usage marks an error as the caller's; No reports that the answer is no.
	Usage func(error) error
	No    func(format string, args ...any) error
	// Print prints a value as a line of JSON.
	Print func(w io.Writer, v any) error
}

// command is the command with its flags.
type command struct {
	World

	scenarios               []string
	seed                    uint64
	parallel                int
	timeout, ackTimeout     time.Duration
	list, asJSON            bool
	serve, serveJSON, token string
	feed                    string
}

// New returns the command.
func New(world World) *cobra.Command {
	c := &command{World: world}
	cmd := &cobra.Command{
		Use:     "conformance [flags] -- COMMAND [ARGUMENT...]",
		Short:   "Judge a client: does it keep the driver app's protocol on a bad network?",
		GroupID: "drive",
		Long: `Run a client against a server that breaks streams, answers late, repeats itself
and refuses, and judge whether it keeps the driver app's protocol
(docs/conformance.md has the scenarios and the rules).

COMMAND is run once in each scenario. It reads reports from standard input, one a
line as protobuf's JSON, without session and sequence; numbers them, delivers them
to STARLING_INGEST (host:port, gRPC without TLS) or STARLING_JSON (a URL) with the
bearer token STARLING_TOKEN, and ends with exit code 0 when all are acknowledged.
It gives a stream up after STARLING_ACK_TIMEOUT seconds without acknowledgement.

With --serve, the server plays one scenario to a client that is run elsewhere, such
as an app on a phone, which delivers what --feed has written.`,
		Example: `  starling conformance -- python3 deliver.py
  starling conformance --scenario breaks,depth --seed 7 -- ./my-client --unary
  starling conformance --serve 127.0.0.1:7600 --scenario storm --feed feed.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringSliceVar(&c.scenarios, "scenario", nil, "Only these scenarios (several allowed).")
	flags.Uint64Var(&c.seed, "seed", 1, "Draws feeds and scenarios; the same seed draws the same.")
	flags.IntVar(&c.parallel, "parallel", 4, "How many scenarios run at a time.")
	flags.DurationVar(&c.timeout, "timeout", time.Minute, "Longest time for a scenario; in one that stays silent, beside --ack-timeout.")
	flags.DurationVar(&c.ackTimeout, "ack-timeout", 30*time.Second, "How long the client waits for an acknowledgement before it gives a stream up. It is told so; less makes the run shorter.")
	flags.BoolVar(&c.list, "list", false, "Print the scenarios and end.")
	flags.BoolVar(&c.asJSON, "json", false, "Print the verdicts as JSON, one object a line.")
	flags.StringVar(&c.serve, "serve", "", "Serve one scenario with gRPC at this address, instead of running a client.")
	flags.StringVar(&c.serveJSON, "serve-json", "127.0.0.1:0", "With --serve, where JSON over HTTP is served.")
	flags.StringVar(&c.token, "token", "", "With --serve, the bearer token that every call has to carry; empty asks for none.")
	flags.StringVar(&c.feed, "feed", "", "With --serve, the file that the reports to deliver are written to.")
	return cmd
}

func (c *command) run(ctx context.Context, args []string) error {
	chosen, err := c.chosen()
	if err != nil {
		return err
	}
	switch {
	case c.list:
		return c.printScenarios(chosen)
	case c.parallel < 1:
		return c.Usage(fmt.Errorf("--parallel is %d: must be at least 1", c.parallel))
	case c.timeout <= 0:
		return c.Usage(fmt.Errorf("--timeout is %s: must be positive", c.timeout))
	case c.ackTimeout <= 0:
		return c.Usage(fmt.Errorf("--ack-timeout is %s: must be positive", c.ackTimeout))
	}
	opts := conformance.Options{Command: args, Environ: c.Environ, Seed: c.seed, Timeout: c.timeout, AckTimeout: c.ackTimeout}
	var verdicts []conformance.Verdict
	if c.serve != "" {
		verdicts, err = c.serveOne(ctx, chosen, opts)
	} else {
		if len(args) == 0 {
			return c.Usage(errors.New("the client's command is missing: starling conformance -- COMMAND"))
		}
		verdicts, err = conformance.RunAll(ctx, chosen, opts, c.parallel)
	}
	if err != nil {
		return err
	}
	return c.report(verdicts)
}

// chosen are the scenarios that --scenario names.
func (c *command) chosen() ([]conformance.Scenario, error) {
	all := conformance.Scenarios()
	if len(c.scenarios) == 0 {
		return all, nil
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	var chosen []conformance.Scenario
	for _, name := range c.scenarios {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, c.Usage(fmt.Errorf("--scenario is %q: must be one of %s", name, strings.Join(names, ", ")))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func (c *command) printScenarios(scenarios []conformance.Scenario) error {
	tw := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "SCENARIO\tVEHICLES\tREPORTS\tWHAT HAPPENS")
	for _, s := range scenarios {
		_, _ = fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", s.Name, s.Vehicles, s.Reports, s.About)
	}
	return tw.Flush()
}

// serveOne plays one scenario to a client that somebody else runs.
func (c *command) serveOne(ctx context.Context, scenarios []conformance.Scenario, opts conformance.Options) ([]conformance.Verdict, error) {
	if len(scenarios) != 1 || scenarios[0].Processes > 1 {
		return nil, c.Usage(errors.New("--serve plays one scenario, and not restart: name it by --scenario"))
	}
	if len(opts.Command) > 0 {
		return nil, c.Usage(errors.New("with --serve there is no command to run"))
	}
	s := scenarios[0]
	if c.feed != "" {
		lines, err := conformance.FeedLines(s.Feed(c.seed))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(c.feed, lines, 0o644); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout+c.ackTimeout)
	defer cancel()
	v, err := conformance.Serve(ctx, s, opts, c.serve, c.serveJSON, c.token, func(rpc, web net.Addr) {
		_, _ = fmt.Fprintf(c.Err, "%s: deliver %d reports to %s (gRPC) or http://%s (JSON)\n", s.Name, s.Reports, rpc, web)
	})
	return []conformance.Verdict{v}, err
}

// report prints the verdicts; the error is that a client breaks a rule.
func (c *command) report(verdicts []conformance.Verdict) error {
	broken := 0
	for _, v := range verdicts {
		if !v.Passed {
			broken++
		}
	}
	if c.asJSON {
		for _, v := range verdicts {
			if err := c.Print(c.Out, v); err != nil {
				return err
			}
		}
	} else if err := c.table(verdicts); err != nil {
		return err
	}
	if broken > 0 {
		return c.No("the client breaks the protocol in %d of %d scenarios (seed %d)", broken, len(verdicts), c.seed)
	}
	return nil
}

func (c *command) table(verdicts []conformance.Verdict) error {
	tw := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "SCENARIO\tVERDICT\tREPORTS\tRESENT\tSTREAMS\tCALLS\tTIME")
	for _, v := range verdicts {
		word := "passed"
		if !v.Passed {
			word = "BROKEN"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f s\n", v.Scenario, word, v.Reports, v.Resent, v.Streams, v.Calls, v.Seconds)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, v := range verdicts {
		if v.Passed {
			continue
		}
		_, _ = fmt.Fprintf(c.Out, "\n%s:\n", v.Scenario)
		for _, b := range v.Breaches {
			_, _ = fmt.Fprintf(c.Out, "  %s: %s\n", b.Rule, b.Text)
		}
		if said := strings.TrimSpace(v.Said); said != "" {
			_, _ = fmt.Fprintf(c.Out, "  The client wrote:\n    %s\n", strings.ReplaceAll(said, "\n", "\n    "))
		}
	}
	return nil
}
