package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/config"
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
