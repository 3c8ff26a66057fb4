package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/cmd/starling/cli/trackform"
	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/reprocess"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

func newHistoryRelease(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release --sink lake|clickhouse",
		Short: "Have a local log keep tracks no longer for a sink of history that is turned off",
		Args:  usageArgs(cobra.NoArgs),
		Long: `Forget how far a sink of history has read a local log, so that tracks are deleted by
their retention alone. Turn the sink off first (history.lake_dir or
history.clickhouse.addrs) and stop the process. What the sink has kept stays, and what
it has not written yet it will not be given. A sink that is turned on again begins with
the oldest record that the log still has, and keeps each fix once all the same. On Kafka
nothing waits for history.`,
		Example: "  starling history release --sink lake --local-directory /var/lib/starling",
	}
	with := logCommand(cmd, world)
	sink := cmd.Flags().String("sink", "", "Which sink: lake or clickhouse (required).")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *sink != "lake" && *sink != "clickhouse" {
			return usage(fmt.Errorf("--sink is %q: must be lake or clickhouse", *sink))
		}
		return with(func(ctx context.Context, log *openLog) error {
			local, ok := log.Log.(*locallog.Log)
			if !ok {
				return usage(errors.New("the log is on Kafka, which keeps nothing for history: there is nothing to release"))
			}
			group, on := log.cfg.History.LakeGroup, log.cfg.History.LakeDir != ""
			if *sink == "clickhouse" {
				group, on = log.cfg.History.ClickHouseGroup, log.cfg.History.ClickHouse.On()
			}
			if on {
				return usage(fmt.Errorf("the sink %s is on in this configuration: turn it off first", *sink))
			}
			claims, err := local.Release(ctx, group)
			if err != nil {
				return err
			}
			if claims == 0 {
				return answerNo("the log keeps nothing for the group %s", group)
			}
			_, err = fmt.Fprintf(world.Out, "the log keeps tracks no longer for the group %s (%d partitions)\n", group, claims)
			return err
		})
	}
	return cmd
}

func newHistoryMigrate(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make history's tables in ClickHouse, or bring them to this build's version",
		Args:  usageArgs(cobra.NoArgs),
		Long: `Make history's tables in the ClickHouse of history.clickhouse.addrs, or bring them to
this build's version, and put history.clickhouse.retention in force. Run it before a
build of another version writes: until then that build tries again and loses nothing. A
schema that is newer than the build is refused. Running it again changes nothing.`,
		Example: "  starling history migrate --history-clickhouse-addrs ch1:9000 --history-clickhouse-password-file secret",
	}
	load := settings(cmd, world)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		done, err := clickhouse.Migrate(cmd.Context(), cfg.History.ClickHouse)
		if errors.Is(err, clickhouse.ErrOff) {
			return usage(err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(world.Out, "the schema of history was version %d and is version %d\n", done.From, done.To)
		return err
	}
	return cmd
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

func newReprocess(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "reprocess --from TIME --to TIME --out DIR",
		Short:   "Step a range of the log again by other settings, beside what there is, and compare",
		GroupID: "drive",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Step the records of locations that were appended in a range again, by the tracker
settings of this configuration (--config, --tracker-...) or another step version, into
a lake of its own, and report what differs from the tracks that there are, the worst
first. Nothing else is changed: the log is only read. A local log must not be in use;
of one that is, take a backup (starling log backup) and restore it elsewhere.

The warm-up is stepped before the range and not written: a vehicle is compared when it
has been known for that long. How far back the log reaches is in the report.`,
		Example: `  starling reprocess --from 2026-03-01T07:00:00Z --to 2026-03-01T09:00:00Z --out other --tracker-filter-min-accuracy-m 3 --kafka-brokers k1:9092
  starling reprocess --from 2026-03-01T07:00:00Z --to 2026-03-01T09:00:00Z --out other --step-version 2 --local-directory /var/lib/starling`,
	}
	with := logCommand(cmd, world)
	carried := step.Carried().Numbers()
	version := cmd.Flags().Int32("step-version", carried[len(carried)-1], fmt.Sprintf("Step version; this binary carries %v.", carried))
	from := cmd.Flags().String("from", "", "Begin of the range, as 2026-03-01T07:00:00Z, by append time (required).")
	to := cmd.Flags().String("to", "", "End of the range, which is not in it (required).")
	o := reprocess.Options{}
	cmd.Flags().StringVar(&o.Out, "out", "", "Directory of the lake to write, new or empty (required).")
	cmd.Flags().DurationVar(&o.WarmUp, "warm-up", time.Hour, "How long before the range to begin.")
	cmd.Flags().IntVar(&o.Worst, "worst", 20, "How many differences to name.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if !slices.Contains(carried, *version) {
			return usage(fmt.Errorf("--step-version is %d: this binary carries %v", *version, carried))
		}
		var bad, badTo error
		o.From, bad = time.Parse(time.RFC3339, *from)
		o.To, badTo = time.Parse(time.RFC3339, *to)
		if bad != nil || badTo != nil {
			return usage(fmt.Errorf("--from and --to are %q and %q: must be times as 2026-03-01T07:00:00Z", *from, *to))
		}
		return with(func(ctx context.Context, log *openLog) error {
			o.Version, o.Settings = *version, log.cfg.Tracker.StepSettings(log.cfg.Partitions)
			o.Progress = func(s string) { _, _ = fmt.Fprintln(world.Err, s) }
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			report, err := reprocess.Run(ctx, log, o)
			if err != nil {
				return err
			}
			if *asJSON {
				return dialect.Print(world.Out, report)
			}
			return printReprocess(world.Out, report)
		})
	}
	return cmd
}

func printReprocess(w io.Writer, r *reprocess.Report) error {
	_, _ = fmt.Fprintf(w, "the log reaches back to %s", r.Reach.Format(time.RFC3339))
	if r.Shortened {
		_, _ = fmt.Fprint(w, ": the warm-up or the range is shorter than asked for")
	}
	_, err := fmt.Fprintf(w, "\n%d fixes in the range; %d rows compared, %d the same, %d with another verdict, %d only new, %d only there before, %d records could not be stepped\n",
		r.Fixes, r.Compared, r.Same, r.Verdicts, r.OnlyNew, r.OnlyLive, r.Poison)
	if r.Compared > r.Same {
		_, err = fmt.Fprintf(w, "corrected positions that differ are apart by p50 %.2f m, p95 %.2f m, at most %.2f m; the worst:\n", r.P50M, r.P95M, r.MaxM)
	}
	for _, d := range r.Worst {
		_, err = fmt.Fprintf(w, "%10.2f m  %s  %s  %s  %s -> %s\n", d.DistanceM, d.Vehicle, d.DeviceTime.Format(time.RFC3339Nano), d.Kind, d.LiveVerdict, d.NewVerdict)
	}
	return err
}
