package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/filtercsv"
	"github.com/starling-fleet/starling/internal/filtereval"
)

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
