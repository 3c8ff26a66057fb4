package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/cmd/starling/cli/trackform"
	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// A fault of a device counts 1 in its badness when it is as large as this.
const (
	fullClock = time.Minute // error of the clock
	fullScale = 10.0        // errors of positions over the stated accuracy
	fullBiasM = 50.0        // slowly changing error of positions
)

// device is what is known of a vehicle's device.
type device struct {
	Vehicle string `json:"vehicle"`
	// Badness is the sum of what is wrong, each 0 (nothing) to 1.
	Badness             float64  `json:"badness"`
	Conflicting         bool     `json:"conflicting"`
	AgeS                *float64 `json:"age_s,omitempty"`
	ClockAheadS         float64  `json:"clock_ahead_s"`
	AccuracyScale       *float32 `json:"accuracy_scale,omitempty"`
	VelocityCredibility *float32 `json:"velocity_credibility,omitempty"`
	BiasM               float32  `json:"bias_m"`
	OutlierShare        float32  `json:"outlier_share"`
	Fixes               int64    `json:"fixes"`
	// UnusedShare is the share of fixes that came late, were set aside or
	// conflicted with another.
	UnusedShare float64 `json:"unused_share"`
	OdometerM   float64 `json:"odometer_m"`
}

// devicesReport is what `starling devices --json` prints.
type devicesReport struct {
	Vehicles int      `json:"vehicles"`
	Devices  []device `json:"devices"` // the worst first
}

func newDevices(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "devices",
		Short:   "Print what is known of the fleet's devices, the worst first",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print what is known of the fleet's devices, the worst first.

The badness of a device is the sum of these, each between 0 and 1:
  conflict   1 while two devices report for the vehicle
  clock      error of the device's clock; 1 from a minute on
  accuracy   how many times larger its errors are than it states; 1 from 10 on
  velocity   how little its speed and heading predict the next position
  bias       slowly changing error of its positions; 1 from 50 m on
  outliers   share of its recent fixes that the filter did not use
  unused     share of all its fixes that came late, were set aside or conflicted`,
		Example: `  starling devices
  starling devices --max-results 10 --json`,
	}
	flags := cmd.Flags()
	addr := flags.String("matcher", defaultMatcher, "Address of the matcher's or fan-out's gRPC server.")
	most := flags.Int("max-results", 50, "How many devices at most; 0 means all.")
	timeout := flags.Duration("timeout", time.Minute, "How long to wait for the whole fleet.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *most < 0 {
			return usage(errors.New("--max-results must not be negative"))
		}
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		conn, err := connect(cmd, *addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		report, err := gatherDevices(ctx, starlingv1.NewFleetServiceClient(conn), *most)
		if err != nil {
			return asked(err, "list the vehicles at %s", *addr)
		}
		if *asJSON {
			return dialect.Print(world.Out, report)
		}
		return printDevices(world.Out, report)
	}
	return cmd
}

// gatherDevices reads the whole fleet and keeps the worst.
func gatherDevices(ctx context.Context, fleet starlingv1.FleetServiceClient, most int) (devicesReport, error) {
	const pageSize = 10_000
	report := devicesReport{Devices: []device{}}
	for token := ""; ; {
		page, err := fleet.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return report, err
		}
		report.Vehicles += len(page.Vehicles)
		for _, v := range page.Vehicles {
			report.Devices = append(report.Devices, deviceOf(v))
		}
		slices.SortStableFunc(report.Devices, func(a, b device) int {
			return cmp.Or(cmp.Compare(b.Badness, a.Badness), strings.Compare(a.Vehicle, b.Vehicle))
		})
		if most > 0 && len(report.Devices) > most {
			report.Devices = report.Devices[:most]
		}
		if token = page.NextPageToken; token == "" {
			return report, nil
		}
	}
}

func deviceOf(v *starlingv1.Vehicle) device {
	counts, learned := v.GetFixCounts(), v.GetDiagnosis()
	unused := counts.GetLate() + counts.GetSetAside() + counts.GetConflict()
	d := device{
		Vehicle:     strings.TrimPrefix(v.Name, "vehicles/"),
		Conflicting: v.Conflicting,
		ClockAheadS: v.DeviceClockAhead.AsDuration().Seconds(),
		BiasM:       learned.GetBiasM(), OutlierShare: learned.GetOutlierShare(),
		Fixes: counts.GetAccepted() + unused, OdometerM: v.GetOdometerM(),
	}
	if v.Age != nil {
		s := v.Age.AsDuration().Seconds()
		d.AgeS = &s
	}
	if d.Fixes > 0 {
		d.UnusedShare = float64(unused) / float64(d.Fixes)
	}
	if learned != nil {
		d.AccuracyScale, d.VelocityCredibility = learned.AccuracyScale, learned.VelocityCredibility
	}
	d.Badness = d.badness()
	return d
}

// badness is the sum that the command's help describes.
func (d *device) badness() float64 {
	share := func(x float64) float64 { return max(0, min(x, 1)) }
	sum := share(math.Abs(d.ClockAheadS)/fullClock.Seconds()) + share(float64(d.BiasM)/fullBiasM) + share(float64(d.OutlierShare)) + share(d.UnusedShare)
	if d.Conflicting {
		sum++
	}
	if d.AccuracyScale != nil && *d.AccuracyScale > 1 {
		sum += share(math.Log(float64(*d.AccuracyScale)) / math.Log(fullScale))
	}
	if d.VelocityCredibility != nil {
		sum += 1 - share(float64(*d.VelocityCredibility))
	}
	return math.Round(sum*1000) / 1000
}

func printDevices(w io.Writer, report devicesReport) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "VEHICLE\tBADNESS\tCLOCK\tERRORS/STATED\tVELOCITY\tBIAS\tOUTLIERS\tUNUSED\tFIXES\tODOMETER\tAGE\tNOTES")
	for i := range report.Devices {
		_, _ = fmt.Fprintln(tw, report.Devices[i].row())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d vehicles.\n", len(report.Devices), report.Vehicles)
	return err
}

func (d *device) row() string {
	optional := func(format string, v *float32, factor float32) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf(format, *v*factor)
	}
	age, note := "-", "-"
	if d.AgeS != nil {
		age = time.Duration(*d.AgeS * float64(time.Second)).Round(100 * time.Millisecond).String()
	}
	if d.Conflicting {
		note = "conflict: two devices report"
	}
	return strings.Join([]string{
		d.Vehicle, fmt.Sprintf("%.2f", d.Badness), fmt.Sprintf("%+.1f s", d.ClockAheadS),
		optional("%.1f", d.AccuracyScale, 1), optional("%.0f %%", d.VelocityCredibility, 100),
		fmt.Sprintf("%.1f m", d.BiasM), fmt.Sprintf("%.1f %%", d.OutlierShare*100), fmt.Sprintf("%.1f %%", d.UnusedShare*100),
		fmt.Sprint(d.Fixes), fmt.Sprintf("%.1f km", d.OdometerM/1000), age, note,
	}, "\t")
}

func newExplain(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain VEHICLE TIME",
		Short:   "Print what became of one fix, and by which rule",
		GroupID: "ask",
		Args:    usageArgs(cobra.ExactArgs(2)),
		Long: `Print what history has of one fix of a vehicle, which its device time names to the
millisecond: as reported, corrected and displayed side by side, and each time that it
came: by which report, and by which rule it was not accepted. Duplicates, conflicts with
their content and refused fixes are in it.

It reads the lake of --lake, or the ClickHouse of history.clickhouse.addrs.`,
		Example: `  starling explain car-00042 2026-03-01T07:00:00.500Z --lake /srv/history
  starling explain car-00042 2026-03-01T07:00:00.500Z --history-clickhouse-addrs ch1:9000 --history-clickhouse-password-file secret`,
	}
	dir := cmd.Flags().String("lake", "", "directory of the lake, as in history.lake_dir")
	load, asJSON := settings(cmd, world), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		at, err := time.Parse(time.RFC3339, args[1])
		if err != nil {
			return usage(fmt.Errorf("TIME is %q: must be a time such as 2026-03-01T07:00:00.500Z", args[1]))
		}
		if !limits.ValidVehicleID(args[0]) {
			return usage(fmt.Errorf("VEHICLE is %q: must be %s", args[0], limits.VehicleIDRule))
		}
		from, err := openHistory(*dir, load)
		if err != nil {
			return usage(err)
		}
		defer func() { _ = from.Close() }()
		e, err := from.Explain(cmd.Context(), args[0], at.UnixMilli())
		if err != nil {
			return err
		}
		if !e.Found && len(e.Arrivals) == 0 {
			return answerNo("history has no fix of %s at %s", args[0], args[1])
		}
		x := trackform.Explain(args[0], at.UnixMilli(), e)
		if *asJSON {
			return dialect.Print(world.Out, x)
		}
		return x.Print(world.Out)
	}
	return cmd
}

// openHistory opens the lake in a directory, or without one the ClickHouse of the
// settings.
func openHistory(dir string, load func() (app.Config, error)) (store.Store, error) {
	if dir != "" {
		return lake.NewReader(dir)
	}
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	if !cfg.History.ClickHouse.On() {
		return nil, errors.New("--lake and history.clickhouse.addrs are empty: name the lake or the ClickHouse")
	}
	return clickhouse.NewStore(cfg.History.ClickHouse)
}

// erasureAsked is what `history erase` prints.
type erasureAsked struct {
	Vehicle   string    `json:"vehicle"`
	Until     time.Time `json:"until"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
}

// firstWithErasures is the first step version that knows them.
const firstWithErasures = 3

func newHistoryErase(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "erase VEHICLE --until TIME",
		Short: "Erase what is kept of a vehicle from before a time",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Long: `Erase what is kept of a vehicle's fixes whose device time is before a time, which can't
be undone. It appends to the log: on a cluster at any time, on a local log while nothing
runs. Then the tracker forgets the vehicle, unless its newest fix is to stay; one that
has a reservation is forgotten when that ends. Each sink of history erases within its
batch interval, and never writes these fixes again. What can't be erased expires: the
records of locations, tracks and dead-letters with those topics' retention, a Parquet
file's earlier version with the snapshots and backups that you keep. docs/history.md
says where each sink reports what it has erased.`,
		Example: "  starling history erase car-00042 --until 2026-03-01T00:00:00Z --kafka-brokers k1:9092",
	}
	until := cmd.Flags().String("until", "", "device time before which fixes are erased, RFC 3339 (required)")
	with, asJSON := logCommand(cmd, world), jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		id := strings.TrimPrefix(args[0], limits.VehicleNamePrefix)
		at, err := time.Parse(time.RFC3339, *until)
		switch {
		case !limits.ValidVehicleID(id):
			return usage(fmt.Errorf("%q is no vehicle: must be %s", id, limits.VehicleIDRule))
		case err != nil:
			return usage(fmt.Errorf("--until is %q: must be a time such as 2026-03-01T07:00:00Z", *until))
		case at.UnixMilli() <= 0 || at.After(time.Now()):
			return usage(fmt.Errorf("--until is %q: must be after 1970 and not in the future, or fixes that are still to come would be lost", *until))
		}
		return with(func(ctx context.Context, log *openLog) error {
			n := eventlog.PartitionOf([]byte(id), log.Partitions())
			found, err := inForce(ctx, log)
			if err != nil {
				return err
			}
			if state, ok := found[n]; ok && state.StepVersion < firstWithErasures {
				return usage(fmt.Errorf("partition %d is stepped by version %d, which knows no erasures: see `starling topics activate --help`", n, state.StepVersion))
			}
			l := wire.Location{Kind: wire.KindErasure, Erasure: wire.Erasure{UntilMS: at.UnixMilli()}}
			offset, err := log.await(ctx, log.queue(ctx, topics.Locations, n, eventlog.Record{Key: []byte(id), Value: l.Append(nil)}))
			if err != nil {
				return fmt.Errorf("append the erasure: %w", err)
			}
			if *asJSON {
				return dialect.Print(world.Out, erasureAsked{id, at.UTC(), n, offset})
			}
			_, err = fmt.Fprintf(world.Out, "the erasure of %s before %s is in the log: locations/%d/%d\n", id, at.UTC().Format(time.RFC3339), n, offset)
			return err
		})
	}
	return cmd
}
