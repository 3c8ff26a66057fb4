package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/schemas/topics"
)

func newTopics(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "topics",
		Short:   "List, create and check the topics of the log, and switch them to a step version",
		GroupID: "run",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTopicsList(world))
	cmd.AddCommand(newTopicsKafka(world, "create", "Create the topics that are missing on a Kafka cluster, and check the others",
		func(ctx context.Context, a *kafkalog.Admin) (kafkalog.Report, error) { return a.EnsureTopics(ctx) }))
	cmd.AddCommand(newTopicsKafka(world, "describe", "Check the topics of a Kafka cluster against what Starling needs",
		func(ctx context.Context, a *kafkalog.Admin) (kafkalog.Report, error) {
			report, err := a.DescribeTopics(ctx)
			if err == nil {
				err = report.Err()
			}
			return report, err
		}))
	cmd.AddCommand(newRaiseEpoch(world), newActivate(world), newTopicsACLs(world))
	return cmd
}

func newTopicsList(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the topics that Starling declares",
		Args:  usageArgs(cobra.NoArgs),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *asJSON {
			for _, t := range topics.All() {
				if err := dialect.Print(world.Out, t); err != nil {
					return err
				}
			}
			return nil
		}
		tw := tabwriter.NewWriter(world.Out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(tw, "TOPIC\tKEY\tVALUE\tKEPT\tLARGEST RECORD")
		for _, t := range topics.All() {
			kept := t.Retention.String()
			if t.Compacted {
				kept = "latest per key"
			}
			_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d KiB\n", t.Name, t.Key, t.Value, kept, t.MaxRecordBytes>>10)
		}
		return tw.Flush()
	}
	return cmd
}

// adminCommand gives a command a connection to the cluster that the settings
// name.
func adminCommand(cmd *cobra.Command, world IO) func(run func(context.Context, *kafkalog.Admin) error) error {
	load := settings(cmd, world)
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "How long to wait for the cluster.")
	return func(run func(context.Context, *kafkalog.Admin) error) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if !cfg.OnKafka() {
			return usage(errors.New("kafka.brokers is empty: this command is for Kafka; the local log makes its topics itself"))
		}
		logger, err := app.NewLogger(cfg.Log, world.Err)
		if err != nil {
			return usage(err)
		}
		admin, err := kafkalog.NewAdmin(cfg.KafkaLog(), topics.All(), logger.With(slog.String("component", "kafkalog")))
		if err != nil {
			return usage(err)
		}
		defer admin.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		return run(ctx, admin)
	}
}

func newTopicsKafka(world IO, name, short string, do func(context.Context, *kafkalog.Admin) (kafkalog.Report, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Args:    usageArgs(cobra.NoArgs),
		Example: "  starling topics " + name + " --kafka-brokers k1:9092,k2:9092 --partitions 48",
	}
	with := adminCommand(cmd, world)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		return with(func(ctx context.Context, admin *kafkalog.Admin) error {
			report, err := do(ctx, admin)
			if len(report.Topics) > 0 {
				if printErr := printTopics(world.Out, report, *asJSON); printErr != nil {
					return printErr
				}
			}
			if err != nil && report.Err() != nil {
				return answerNo("%w", err)
			}
			return err
		})
	}
	return cmd
}

func printTopics(w io.Writer, report kafkalog.Report, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, report)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "TOPIC\tSTATE\tPARTITIONS\tREPLICAS\tNOT IN SYNC")
	for _, t := range report.Topics {
		state := "as declared"
		switch {
		case !t.Exists:
			state = "missing"
		case t.Fault != "":
			state = "not usable"
		case t.Created:
			state = "created"
		case len(t.Differences) > 0:
			state = fmt.Sprintf("usable, but: %v", t.Differences)
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\n", t.Name, state, t.Partitions, t.Replicas, t.UnderReplicated)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "epoch %d\n", report.Epoch)
	return err
}

func newRaiseEpoch(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "raise-epoch",
		Short: "Declare that the log has lost something: state of the epoch before is refused from now on",
		Args:  usageArgs(cobra.NoArgs),
		Long: `Declare that the log of a Kafka cluster has lost something, such as a topic that
was created anew. Checkpoints of the epoch before are refused from then on, and
vehicles are unknown until they report.`,
		Example: "  starling topics raise-epoch --kafka-brokers k1:9092",
	}
	with := adminCommand(cmd, world)
	atLeast := cmd.Flags().Int64("at-least", 0, "Raise it to this number or more.")
	cmd.RunE = func(*cobra.Command, []string) error {
		return with(func(ctx context.Context, admin *kafkalog.Admin) error {
			epoch, err := admin.RaiseEpoch(ctx, *atLeast)
			if err != nil {
				return fmt.Errorf("raise the epoch: %w", err)
			}
			_, err = fmt.Fprintf(world.Out, "epoch %d\n", epoch)
			return err
		})
	}
	return cmd
}

// aclsOf returns what the processes of a role may do on a cluster that asks.
func aclsOf(cfg app.Config, role string) []kafkalog.ACL {
	groups := map[string][]kafkalog.Group{
		"tracker": {{Name: cfg.Tracker.Group, State: topics.TrackerState}},
		"rides":   {{Name: cfg.Rides.Group, State: topics.RidesState}},
		"history": {{Name: cfg.History.LakeGroup, State: topics.HistoryState}, {Name: cfg.History.ClickHouseGroup, State: topics.HistoryState}},
	}
	return kafkalog.ACLs(cfg.KafkaLog(), role, groups[role]...)
}

func newTopicsACLs(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "acls [ROLE...]",
		Short: "Print what each role needs on a Kafka cluster that has ACLs",
		Args:  usageArgs(cobra.OnlyValidArgs),
		Long: `Print what each role needs on a Kafka cluster that has ACLs, as lines of Kafka's
own tool, to which --bootstrap-server and --command-config must be added. Creating
topics is left to an operator: run "starling topics create" and set
kafka.create_topics to false.`,
		Example:   "  starling topics acls tracker --principal 'User:CN=starling-{role}'",
		ValidArgs: topics.Roles(),
	}
	load := settings(cmd, world)
	principal := cmd.Flags().String("principal", "User:starling-{role}", "Who a role is for Kafka; {role} is its name.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, roles []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if len(roles) == 0 {
			roles = topics.Roles()
		}
		for _, role := range roles {
			who := strings.ReplaceAll(*principal, "{role}", role)
			for _, acl := range aclsOf(cfg, role) {
				if *asJSON {
					err = dialect.Print(world.Out, struct {
						Role, Principal string
						kafkalog.ACL
					}{role, who, acl})
				} else {
					_, err = fmt.Fprintln(world.Out, acl.Command("'"+who+"'"))
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
	return cmd
}
