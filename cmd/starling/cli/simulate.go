package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/fleetsim"
)

// fleetFlags gives a command the simulated fleet's settings as flags.
func fleetFlags(cmd *cobra.Command) func() (fleetsim.Config, error) {
	defaults := fleetsim.DefaultConfig()
	config.RegisterFlags(cmd.Flags(), config.Settings(&defaults))
	return func() (fleetsim.Config, error) {
		fleet := fleetsim.DefaultConfig()
		if err := config.Load(&fleet, config.Sources{Flags: cmd.Flags()}); err != nil {
			return fleet, usage(err)
		}
		return fleet, usage(fleet.Validate())
	}
}

func newSimulate(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "simulate",
		Short:   "Send the reports of a simulated city fleet",
		GroupID: "drive",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Send the reports of a simulated city fleet to ingest, as phones would: with
jitter, GPS noise, tunnels, fixes uploaded by the minute, resends and disorder.
The same seed gives the same fleet.`,
		Example: `  starling simulate                                  # 200 vehicles until Ctrl-C
  starling simulate --vehicles 5000 --period 1s --duration 10m
  starling simulate --duration 1h --flat-out --json  # an hour's reports at once`,
	}
	fleet := fleetFlags(cmd)
	opts := fleetsim.DefaultOptions()
	addr := cmd.Flags().String("ingest", defaultIngest, "Address of ingest's server.")
	cmd.Flags().DurationVar(&opts.Duration, "duration", 0, "How long the fleet drives; 0 means until Ctrl-C.")
	cmd.Flags().BoolVar(&opts.FlatOut, "flat-out", false, "Send the whole duration, which then ends now, as fast as the server takes it.")
	cmd.Flags().DurationVar(&opts.DrainTimeout, "drain-timeout", opts.DrainTimeout, "How long to wait at the end for acknowledgements.")
	quiet := cmd.Flags().Bool("quiet", false, "No progress on standard error.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if opts.Fleet, err = fleet(); err != nil {
			return err
		}
		d := addresses{ingest: addr, matcher: addr}
		ingest, _, closeDoors, err := d.open(cmd)
		if err != nil {
			return err
		}
		defer closeDoors()
		opts.Ingest = ingest
		if err := opts.Validate(); err != nil {
			return usage(err)
		}
		opts.Trouble = (&troubles{w: world.Err, addr: *addr}).report
		if !*quiet {
			opts.Progress = func(p fleetsim.Progress) { printSimulation(world.Err, p) }
		}
		result, err := fleetsim.Run(cmd.Context(), opts)
		if err != nil {
			return explain(err)
		}
		if *asJSON {
			err = dialect.Print(world.Out, result)
		} else {
			printSimulation(world.Out, result)
		}
		if n := result.Client.PendingReports; err == nil && n > 0 {
			return answerNo("%d reports are not acknowledged", n)
		}
		return err
	}
	return cmd
}

func printSimulation(w io.Writer, p fleetsim.Progress) {
	_, _ = fmt.Fprintf(w, "%6s  %d fixes in %d reports sent, %d acknowledged (%.0f/s), %d refused, ack p50 %s p99 %s, %d reports under way\n",
		p.Elapsed.Round(time.Second), p.Fixes, p.Reports, p.Client.AcknowledgedFixes, p.FixesPerSecond, p.Client.RefusedFixes,
		short(p.AckLatency.P50), short(p.AckLatency.P99), p.Client.PendingReports)
}

// short prints a latency with as much precision as a person wants.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}
