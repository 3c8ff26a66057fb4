package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/filtercsv"
	"github.com/starling-fleet/starling/internal/filtereval"
	"github.com/starling-fleet/starling/internal/replay"
)

const defaultIngest = "127.0.0.1:7600"

// addresses are the two addresses that a driver of the fleet needs.
type addresses struct{ ingest, matcher *string }

func addressFlags(cmd *cobra.Command) addresses {
	return addresses{
		ingest:  cmd.Flags().String("ingest", defaultIngest, "Address of ingest's server."),
		matcher: cmd.Flags().String("matcher", defaultMatcher, "Address of the matcher's server."),
	}
}

// open connects to both; close must be called.
func (d addresses) open(cmd *cobra.Command) (ingest, matcher *grpc.ClientConn, closeBoth func(), err error) {
	ingest, err = connect(cmd, *d.ingest)
	if err != nil {
		return nil, nil, nil, err
	}
	matcher, err = connect(cmd, *d.matcher)
	if err != nil {
		_ = ingest.Close()
		return nil, nil, nil, err
	}
	return ingest, matcher, func() { _ = ingest.Close(); _ = matcher.Close() }, nil
}

// replayReport is what `replay --json` prints.
type replayReport struct {
	Account      replay.Account       `json:"account"`
	Closes       bool                 `json:"closes"`
	Why          string               `json:"why,omitempty"`
	Verification *replay.Verification `json:"verification,omitempty"`
}

func newReplay(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "replay FILE...",
		Short:   "Play recorded drives through the gRPC server and account for every row",
		GroupID: "drive",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		Long: `Play recorded fixes (CSV or CSV.gz; columns vehicle_id, unix_ms, lat, lon and, as
far as there are any, accuracy_m, speed_mps, heading_deg) through the gRPC server,
and account for every row at the end:

  rows = accepted + duplicates + conflicts + late + refused by reason

A folder stands for the recordings in it. The recorded times are moved so that
the last point is now when the playback ends, unless --as-recorded; then the
server must accept times so old (its setting ingest.validation.max_age). Nobody else may
report for the same vehicles meanwhile, or the account can't close.`,
		Example: `  starling replay drives.csv.gz                  # as fast as the server takes it
  starling replay --speedup 60 monday/ tuesday/  # a minute a second
  starling replay --verify 1000 drives.csv.gz    # and compare nearest with brute force`,
	}
	opts := replay.DefaultOptions()
	d := addressFlags(cmd)
	flags := cmd.Flags()
	flags.Float64Var(&opts.Speedup, "speedup", 0, "How many times faster than recorded; 0 is as fast as the server takes it.")
	flags.BoolVar(&opts.AsRecorded, "as-recorded", false, "Keep the recorded times.")
	maxGap := flags.Duration("max-gap", time.Hour, "Shorten a silence of the whole recording to this; 0 keeps it. Not with --as-recorded.")
	flags.StringVar(&opts.VehiclePrefix, "vehicle-prefix", "", "Put this before every vehicle id, to play a recording as another fleet.")
	flags.IntVar(&opts.BatchSize, "batch-size", opts.BatchSize, "Fixes of one vehicle in a report.")
	flags.DurationVar(&opts.SettleTimeout, "settle-timeout", opts.SettleTimeout, "How long to wait at the end for the fleet to show everything.")
	verify := flags.Int("verify", 0, "Then compare nearest with brute force for so many random places.")
	quiet := flags.Bool("quiet", false, "No progress on standard error.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ingest, matcher, closeBoth, err := d.open(cmd)
		if err != nil {
			return err
		}
		defer closeBoth()
		opts.Paths, opts.Ingest, opts.Fleet = args, ingest, matcher
		if !opts.AsRecorded {
			opts.MaxGap = *maxGap
		}
		if err := opts.Validate(); err != nil {
			return usage(err)
		}
		opts.Trouble = (&troubles{w: world.Err, addr: *d.ingest}).report
		if !*quiet {
			opts.Progress = func(p replay.Progress) { printProgress(world.Err, p) }
		}
		account, err := replay.Run(cmd.Context(), opts)
		if errors.Is(err, fs.ErrNotExist) {
			return usage(err)
		}
		if err != nil {
			return explain(err)
		}
		return closeReplay(cmd.Context(), world, account, verifier{matcher, *verify}, *asJSON)
	}
	return cmd
}

// verifier compares nearest with brute force at some places; none if 0.
type verifier struct {
	matcher *grpc.ClientConn
	places  int
}

// closeReplay prints the account and reports whether all is as it must be.
func closeReplay(ctx context.Context, world IO, account replay.Account, verify verifier, asJSON bool) error {
	report := replayReport{Account: account}
	closing := account.Check()
	if report.Closes = closing == nil; !report.Closes {
		report.Why = closing.Error()
	}
	var wrong error
	if verify.places > 0 {
		opts := replay.DefaultVerifyOptions()
		opts.Fleet, opts.Places = verify.matcher, verify.places
		verification, err := replay.Verify(ctx, opts)
		report.Verification, wrong = &verification, err
	}
	if err := printReplay(world.Out, report, asJSON); err != nil {
		return err
	}
	if closing != nil {
		return answerNo("the account does not close: %w", closing)
	}
	if wrong != nil {
		return answerNo("nearest is not exact: %w", wrong)
	}
	return nil
}

func printProgress(w io.Writer, p replay.Progress) {
	if p.Settling {
		_, _ = fmt.Fprintf(w, "%6s  all sent; the fleet shows %d fixes\n", p.Elapsed.Round(time.Second), p.Consumed)
		return
	}
	_, _ = fmt.Fprintf(w, "%6s  %d of %d rows sent, %d acknowledged (%.0f/s), %d refused, %d reports under way\n",
		p.Elapsed.Round(time.Second), p.Rows, p.RowsTotal, p.AcknowledgedFixes, p.FixesPerSecond, p.RefusedFixes, p.UnacknowledgedReports)
}

func printReplay(w io.Writer, r replayReport, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, r)
	}
	_, err := fmt.Fprintf(w, "%s\n%d vehicles from %d files, acknowledged in %s (%.0f fixes/s), searchable %s later\n",
		r.Account, r.Account.Vehicles, len(r.Account.Files),
		r.Account.SendDuration.Round(time.Millisecond), r.Account.FixesPerSecond(), r.Account.SettleDuration.Round(time.Millisecond))
	if err == nil && r.Closes {
		_, err = fmt.Fprintln(w, "The account closes: every row is in exactly one class.")
	}
	if v := r.Verification; err == nil && v != nil {
		_, err = fmt.Fprintf(w, "Nearest compared with brute force over %d vehicles: %d places, %d results.\n", v.Vehicles, v.Places, v.Results)
	}
	return err
}

func newFilter(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "filter",
		Short:   "Filter fixes from standard input to standard output, CSV to CSV",
		GroupID: "drive",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Filter fixes from standard input, in order of arrival (CSV with the columns
vehicle_id, unix_ms, lat, lon and, as far as there are any, accuracy_m,
speed_mps, heading_deg; an empty cell was not reported), and write one row for
each row, in the same order, with the vehicle's live position right after it
(live_lat, live_lon: the best causal estimate) and its display position
(display_lat, display_lon: calm, for maps and distance).

A row that breaks a rule is written with the verdict "refused" and reported on
standard error; the exit code is then 3.

With --eval, it compares the live position with a reference trajectory (CSV with
the columns unix_ms, lat, lon) and prints a table instead, for the drive as it is
and with injected faults. Given a folder, it does so for all NAME.csv.gz with a
NAME.truth.csv.gz in it, and reads nothing from standard input; of a folder with
the folders truth, drives and quirks, for all in them.`,
		Example: `  starling filter < drive.csv > clean.csv
  zcat drive.csv.gz | starling filter --window 10s
  zcat drive.csv.gz | starling filter --eval drive.truth.csv.gz
  starling filter --eval drives/`,
	}
	window := cmd.Flags().Duration("window", filtercsv.DefaultWindow, "How far, in device time, a row may be behind its vehicle's newest and still count.")
	truth := cmd.Flags().String("eval", "", "Compare with this reference trajectory, or with those in this folder.")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *truth != "" {
			return evaluateFilter(world, *truth)
		}
		if *window <= 0 || *window > 24*time.Hour {
			return usage(fmt.Errorf("--window is %s: must be positive and at most 24h", *window))
		}
		summary, err := filtercsv.Run(world.In, world.Out, filtercsv.Options{Window: *window, Errors: world.Err})
		if err != nil {
			return fmt.Errorf("filter: %w", err)
		}
		if summary.Refused > 0 {
			return answerNo("%d of %d rows were refused", summary.Refused, summary.Rows)
		}
		return nil
	}
	return cmd
}

// evaluateFilter prints how near the filter comes to a reference trajectory.
func evaluateFilter(world IO, truth string) error {
	f, err := gpsfilter.New(gpsfilter.DefaultConfig())
	if err != nil {
		return err
	}
	if info, err := os.Stat(truth); err == nil && info.IsDir() {
		if err := filtereval.Folder(world.Out, truth, f, true); err != nil {
			return fmt.Errorf("evaluate the filter: %w", err)
		}
		return nil
	}
	stream, err := filtereval.LoadDrive("stdin", world.In, truth)
	if err != nil {
		return fmt.Errorf("evaluate the filter: %w", err)
	}
	filtereval.NewSuite([]filtereval.Stream{stream}, 0).Judge(filtereval.Starling(f)).Print(world.Out, true)
	return nil
}
