package cli

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/internal/ridesim"
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
The same seed gives the same fleet.

With --rides nothing is sent: the ways to match rides with vehicles are compared
on a virtual clock.`,
		Example: `  starling simulate                                  # 200 vehicles until Ctrl-C
  starling simulate --vehicles 5000 --period 1s --duration 10m
  starling simulate --duration 1h --flat-out --json  # an hour's reports at once
  starling simulate --rides --picture matching.svg   # matchers, compared in a made-up city`,
	}
	fleet := fleetFlags(cmd)
	opts := fleetsim.DefaultOptions()
	addr := cmd.Flags().String("ingest", defaultIngest, "Address of ingest's server.")
	cmd.Flags().DurationVar(&opts.Duration, "duration", 0, "How long the fleet drives; 0 means until Ctrl-C.")
	cmd.Flags().BoolVar(&opts.FlatOut, "flat-out", false, "Send the whole duration, which then ends now, as fast as the server takes it.")
	cmd.Flags().DurationVar(&opts.DrainTimeout, "drain-timeout", opts.DrainTimeout, "How long to wait at the end for acknowledgements.")
	quiet := cmd.Flags().Bool("quiet", false, "No progress on standard error.")
	rides := addRideFlags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if opts.Fleet, err = fleet(); err != nil {
			return err
		}
		if *rides.on {
			return rides.run(cmd.Context(), world, opts.Fleet.Seed, opts.Fleet.Vehicles, *asJSON)
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

// rideFlags are those of `simulate --rides`.
type rideFlags struct {
	on              *bool
	demand, picture *string
	runs            *int
	share           *float64
	search          *time.Duration
	rules           *[]string
}

func addRideFlags(cmd *cobra.Command) rideFlags {
	f, c := cmd.Flags(), ridesim.DefaultComparison()
	return rideFlags{
		on:      f.Bool("rides", false, "Compare the ways to match rides with vehicles on a virtual clock, and send nothing (docs/matching.md)."),
		demand:  f.String("demand", "", "With --rides: file of trips, CSV with pickup_unix_ms, pickup_lat, pickup_lon, dropoff_lat and dropoff_lon, or the same in gzip. Without it a city is made up."),
		picture: f.String("picture", "", "With --rides: file for a picture of the result, in SVG."),
		runs:    f.Int("runs", c.Runs, "With --rides: runs of each rule at each supply, with seeds from --seed on."),
		share:   f.Float64("share", 0, "With --rides and --vehicles: the part of the demand that is requested, instead of the three supplies of docs/matching.md."),
		search:  f.Duration("search", c.Base.Search, "With --rides: how long a vehicle is searched before a rider gives up."),
		rules:   f.StringSlice("rules", c.Rules, "With --rides: what is compared."),
	}
}

// run compares and prints. Seed and vehicles are the fleet's.
func (f rideFlags) run(ctx context.Context, world IO, seed int64, vehicles int, asJSON bool) error {
	c := ridesim.DefaultComparison()
	c.Base.Seed, c.Base.Search, c.Runs, c.Rules = seed, *f.search, *f.runs, *f.rules
	if *f.share != 0 {
		c.Supplies = []ridesim.Supply{{Name: "given", Share: *f.share, Vehicles: vehicles}}
	}
	if err := c.Validate(); err != nil {
		return usage(err)
	}
	demand, err := readDemand(*f.demand)
	if err != nil {
		return err
	}
	rows, err := ridesim.Compare(ctx, c, demand)
	if err != nil {
		return err
	}
	if *f.picture != "" {
		if err := writePicture(*f.picture, rows); err != nil {
			return err
		}
	}
	if !asJSON {
		return ridesim.Table(world.Out, rows)
	}
	for _, row := range rows {
		if err := dialect.Print(world.Out, row); err != nil {
			return err
		}
	}
	return nil
}

// readDemand reads a file of trips, or makes a city up. Its seed is fixed: the
// runs' seeds draw from one demand.
func readDemand(path string) ([]ridesim.Trip, error) {
	if path == "" {
		return ridesim.Model{Trips: 30_000, Hours: 2, Seed: 9}.Generate()
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usage(err)
	}
	defer func() { _ = f.Close() }()
	var in io.Reader = bufio.NewReader(f)
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(in); err != nil {
			return nil, usage(fmt.Errorf("demand %s: %w", path, err))
		}
	}
	trips, err := ridesim.ReadCSV(in)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", path, err))
	}
	return trips, nil
}

func writePicture(path string, rows []ridesim.Row) error {
	f, err := os.Create(path)
	if err != nil {
		return usage(err)
	}
	return errors.Join(ridesim.Picture(f, rows), f.Close())
}
