package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// settings gives a command the whole configuration: its flags, and a function
// that loads and checks it.
func settings(cmd *cobra.Command, world IO) func() (app.Config, error) {
	defaults := app.DefaultConfig()
	config.RegisterFlags(cmd.Flags(), config.Settings(&defaults))
	file := cmd.Flags().String("config", lookupEnv(world.Environ, config.EnvPrefix+"CONFIG"), "Configuration file (YAML); also STARLING_CONFIG.")
	return func() (app.Config, error) {
		cfg := app.DefaultConfig()
		if err := config.Load(&cfg, config.Sources{File: *file, Environ: world.Environ, Flags: cmd.Flags()}); err != nil {
			return cfg, usage(fmt.Errorf("configuration: %w", err))
		}
		if err := cfg.Validate(); err != nil {
			return cfg, usage(fmt.Errorf("configuration: %w", err))
		}
		return cfg, nil
	}
}

func lookupEnv(environ []string, name string) string {
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

func roleCommands(world IO) []*cobra.Command {
	return []*cobra.Command{
		newRole(world, "up", "Run every role in one process", app.AllRoles(), `  starling up --dev
  starling up --auth-keys-file keys.pem --auth-issuer https://id.example.com --local-directory /var/lib/starling
  starling up --dev --kafka-brokers localhost:9092 --partitions 48`),
		newRole(world, "ingest", "Run the server for driver apps on a Kafka cluster", []app.Role{app.Ingest},
			`  starling ingest --dev --kafka-brokers k1:9092,k2:9092 --server-ingest-listen 127.0.0.1:7600`),
		newRole(world, "tracker", "Run an owner of partitions on a Kafka cluster", []app.Role{app.Tracker},
			`  starling tracker --dev --kafka-brokers k1:9092,k2:9092 --server-admin-listen 127.0.0.1:7702`),
		newRole(world, "matcher", "Run the server for dispatchers and riders on a Kafka cluster", []app.Role{app.Matcher},
			`  starling matcher --dev --kafka-brokers k1:9092,k2:9092 --server-matcher-listen 127.0.0.1:7601
  starling matcher --dev --kafka-brokers k1:9092 --matcher-region west --matcher-regions 'west=841e149ffffffff,else=rest'`),
		newRole(world, "rides", "Run an owner of rides on a Kafka cluster", []app.Role{app.Rides},
			`  starling rides --dev --kafka-brokers k1:9092,k2:9092 --server-rides-listen 127.0.0.1:7602 --rides-name-keys-file keys`),
		withCommand(newRole(world, "history", "Run a writer of history on a Kafka cluster", []app.Role{app.History},
			`  starling history --dev --kafka-brokers k1:9092,k2:9092 --history-lake-dir /srv/history --server-admin-listen 127.0.0.1:7902 --server-json-listen 127.0.0.1:7903`),
			newHistoryMigrate(world), newHistoryRelease(world), newHistoryErase(world)),
		newRole(world, "fanout", "Run the server for dispatchers and riders before matchers of regions", []app.Role{app.Fanout},
			`  starling fanout --dev --matcher-regions 'west=841e149ffffffff,else=rest' \
      --fanout-replicas west=10.0.0.1:7601,else=10.0.0.2:7601`),
	}
}

func newRole(world IO, name, short string, roles []app.Role, example string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: example,
		GroupID: "run",
		Args:    usageArgs(cobra.NoArgs),
		Long: short + `.

Every setting is a flag, an environment variable and a key of the configuration
file; a flag wins over a variable, a variable over the file. The reference is
docs/configuration.md, and ` + "`starling config print`" + ` shows what is in force.
It stops on SIGINT or SIGTERM without losing anything; a second signal ends it at
once, which is safe too. On SIGHUP it opens its log file (log.file) anew and reads
again what can change while it runs.`,
	}
	load := settings(cmd, world)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hangups := takeHangups()
		defer hangups.stop()
		cfg, err := load()
		if err != nil {
			return err
		}
		output, err := app.OpenLogOutput(cfg.Log, world.Err)
		if err != nil {
			return err
		}
		defer func() { _ = output.Close() }()
		logger, err := app.NewLogger(cfg.Log, output)
		if err != nil {
			return usage(err)
		}
		slog.SetDefault(logger) // what libraries log by package log or slog
		process, err := app.New(cfg, roles, logger)
		if err != nil {
			return usage(err)
		}
		process.OnReload("log file", output.Reopen)
		hangups.reload(process.Reload)
		return setupError(process.Run(cmd.Context()))
	}
	return cmd
}

// withCommand gives a command others below it.
func withCommand(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(below...)
	return cmd
}

func newConfig(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Print, check or describe the configuration",
		GroupID: "run",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	show := &cobra.Command{
		Use:     "print",
		Short:   "Print the configuration in force, as a file that can be used",
		Long:    "Print the configuration in force, from defaults, file, environment and flags, as a\nfile that can be used. Faults are all named in one message, with exit code 2.",
		Example: "  starling config print --config starling.yaml --kafka-brokers k1:9092",
		Args:    usageArgs(cobra.NoArgs),
	}
	load := settings(show, world)
	asJSON := jsonFlag(show)
	show.RunE = func(*cobra.Command, []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if *asJSON {
			return dialect.Print(world.Out, config.Values(cfg))
		}
		return config.Print(world.Out, cfg)
	}
	check := &cobra.Command{
		Use:     "check",
		Short:   "Check the configuration and say whether it can be used",
		Long:    "Check the configuration, from defaults, file, environment and flags. Faults are all\nnamed in one message, with exit code 2. No server, log or cluster is asked.",
		Example: "  starling config check --config starling.yaml",
		Args:    usageArgs(cobra.NoArgs),
	}
	loadChecked := settings(check, world)
	check.RunE = func(*cobra.Command, []string) error {
		if _, err := loadChecked(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(world.Out, "The configuration can be used.")
		return err
	}
	reference := &cobra.Command{
		Use:   "reference",
		Short: "Print the reference of all settings (Markdown)",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return writeReference(world.Out)
		},
	}
	cmd.AddCommand(show, check, reference)
	return cmd
}

// writeReference writes docs/configuration.md.
func writeReference(w io.Writer) error {
	_, err := fmt.Fprint(w, `# Configuration

Generated by `+"`make docs`"+` from the code. Each setting can be given as

- a **flag**, as listed;
- an **environment variable**: STARLING_ and the key in capitals, with _ for each
  dot: `+"`ingest.append_wait`"+` is STARLING_INGEST_APPEND_WAIT;
- a **key** of the YAML file named by `+"`--config`"+` or STARLING_CONFIG, where dots
  are sections.

A flag wins over a variable, a variable over the file, the file over the default.
Unknown keys and variables are refused, and all faults are named in one message.
Durations carry a unit: 1500ms, 30s, 24h. `+"`starling config print`"+` shows what is
in force.
`)
	if err != nil {
		return err
	}
	return config.WriteReference(w, app.DefaultConfig())
}

// hangups takes SIGHUP, which would end the process otherwise. Several that come
// together cause one reload.
type hangups struct {
	signals chan os.Signal
	quit    chan struct{}
	wg      sync.WaitGroup
}

// takeHangups takes them from now on; stop gives them back.
func takeHangups() *hangups {
	h := &hangups{signals: make(chan os.Signal, 1), quit: make(chan struct{})}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

// reload calls a function, which logs its own faults, at every hangup.
func (h *hangups) reload(run func() error) {
	h.wg.Go(func() {
		for {
			select {
			case <-h.signals:
				_ = run()
			case <-h.quit:
				return
			}
		}
	})
}

// stop joins the reload that may be running.
func (h *hangups) stop() {
	signal.Stop(h.signals)
	close(h.quit)
	h.wg.Wait()
}

// released is what `rides release` prints.
type released struct {
	Vehicle   string `json:"vehicle"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func newRidesRelease(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release RIDE|VEHICLE",
		Short: "Free a vehicle of whatever holds it, as an operator",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Long: `Free a vehicle of whatever ride holds it. It is for a reservation that nobody ends;
a ride that is bound to the vehicle searches again, or ends as lost with the rider
on board. rides/NAME means the vehicle that the last event of the ride binds. It
appends to the log: on a cluster at any time, on a local log while nothing runs.`,
		Example: "  starling rides release sim-0042 --kafka-brokers k1:9092\n  starling rides release rides/0d1h7w --local-directory /var/lib/starling",
	}
	with, asJSON := logCommand(cmd, world), jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return with(func(ctx context.Context, log *openLog) error {
			id := strings.TrimPrefix(args[0], limits.VehicleNamePrefix)
			if ride, ok := strings.CutPrefix(args[0], ridePrefix); ok {
				var err error
				if id, err = boundVehicle(ctx, log, ride); err != nil {
					return err
				}
			}
			if !limits.ValidVehicleID(id) {
				return usage(fmt.Errorf("%q is no vehicle: must be %s", id, limits.VehicleIDRule))
			}
			n := eventlog.PartitionOf([]byte(id), log.Partitions())
			l := wire.Location{Kind: wire.KindRelease, Release: wire.Release{Operator: true}}
			offset, err := log.await(ctx, log.queue(ctx, topics.Locations, n, eventlog.Record{Key: []byte(id), Value: l.Append(nil)}))
			if err != nil {
				return fmt.Errorf("append the release: %w", err)
			}
			if *asJSON {
				return dialect.Print(world.Out, released{id, n, offset})
			}
			_, err = fmt.Fprintf(world.Out, "the release of %s is in the log: locations/%d/%d\n", id, n, offset)
			return err
		})
	}
	return cmd
}

// boundVehicle finds the vehicle that the last event of a ride names, whichever
// partition it is in.
func boundVehicle(ctx context.Context, log *openLog, ride string) (string, error) {
	bounds, err := log.Bounds(ctx, topics.Rides)
	if err != nil {
		return "", fmt.Errorf("bounds of %s: %w", topics.Rides, err)
	}
	vehicle, found := "", false
	for n, b := range bounds {
		err := log.read(ctx, topics.Rides, int32(n), b.First, b.End, func(stored eventlog.Stored) error {
			var r starlingv1.RideRecord
			if string(stored.Key) != ride {
				return nil
			}
			if err := proto.Unmarshal(stored.Value, &r); err != nil {
				return fmt.Errorf("decode %s at offset %d: %w", topics.Rides, stored.Offset, err)
			}
			if v := r.GetEvent().GetVehicleId(); v != "" {
				vehicle = v
			}
			found = true
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	switch {
	case !found:
		return "", answerNo("the log has no ride %s", ride)
	case vehicle == "":
		return "", answerNo("no vehicle was ever bound to the ride %s", ride)
	}
	return vehicle, nil
}

// abandoned is what `rides abandon` prints.
type abandoned struct {
	RidesPartition int32   `json:"rides_partition"`
	Epoch          int64   `json:"epoch"`
	Offsets        []int64 `json:"offsets"`
}

func newRidesAbandon(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "abandon PARTITION --yes",
		Short: "State, after a raised epoch, that a partition of rides promises no vehicle",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Long: `State that a partition of rides promises no vehicle in this epoch. After an epoch
was raised no vehicle is reserved until the owner of every partition of rides has
restated what it promised. When an owner can't, because its state is lost, this
stands in for it: the first statement of an epoch counts.

EVERY RIDE OF THE PARTITION THAT IS UNDER WAY LOSES ITS VEHICLE: before the pickup
it searches again, with the rider on board it ends as lost. Do it only when the
partition's owner will not come back.`,
		Example: "  starling rides abandon 7 --kafka-brokers k1:9092 --yes",
	}
	with, asJSON := logCommand(cmd, world), jsonFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "Append it. Rides of the partition lose their vehicles.")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		n, err := strconv.ParseInt(args[0], 10, 32)
		if err != nil {
			return usage(fmt.Errorf("PARTITION is %q: must be a whole number", args[0]))
		}
		if !*yes {
			return usage(errors.New("give --yes if rides of the partition may lose their vehicles: see `starling rides abandon --help`"))
		}
		return with(func(ctx context.Context, log *openLog) error {
			if n < 0 || n >= int64(log.Partitions()) {
				return usage(fmt.Errorf("PARTITION is %d: must be between 0 and %d", n, log.Partitions()-1))
			}
			out := abandoned{RidesPartition: int32(n), Epoch: log.Epoch()}
			_, _ = fmt.Fprintf(world.Err, "partition %d of rides promises nothing in epoch %d: its rides lose their vehicles\n", n, out.Epoch)
			var failures []error
			for p := range log.Partitions() {
				l := wire.Location{Kind: wire.KindReasserted, Reasserted: wire.Reasserted{Epoch: out.Epoch, RidesPartition: int32(n), Parts: 1}}
				offset, err := log.await(ctx, log.queue(ctx, topics.Locations, p, eventlog.Record{Value: l.Append(nil)}))
				if err != nil {
					failures, offset = append(failures, fmt.Errorf("partition %d of locations may lack it, repeat the command: %w", p, err)), -1
				}
				out.Offsets = append(out.Offsets, offset)
			}
			if *asJSON {
				return errors.Join(append(failures, dialect.Print(world.Out, out))...)
			}
			_, err := fmt.Fprintf(world.Out, "stated to %d partitions of locations, at offsets %v\n", len(out.Offsets)-len(failures), slices.Clone(out.Offsets))
			return errors.Join(append(failures, err)...)
		})
	}
	return cmd
}
