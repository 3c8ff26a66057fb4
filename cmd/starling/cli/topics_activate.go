package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// activation is what `topics activate` prints.
type activation struct {
	StepVersion  int32             `json:"step_version"`
	Settings     json.RawMessage   `json:"settings"`
	GoldenDigest string            `json:"golden_digest"`
	DryRun       bool              `json:"dry_run"`
	Partitions   []partitionSwitch `json:"partitions"`
}

// partitionSwitch is what the switch is or would be to one partition.
type partitionSwitch struct {
	Partition int32 `json:"partition"`
	// InForce is what a dry run has found; nil when there is no checkpoint.
	InForce *versionInForce `json:"in_force,omitempty"`
	// Changes are the settings that would change.
	Changes []string `json:"changes,omitempty"`
	// Offset is where the switch stands, Error why it does not.
	Offset *int64 `json:"offset,omitempty"`
	Error  string `json:"error,omitempty"`
}

type versionInForce struct {
	StepVersion int32           `json:"step_version"`
	Settings    json.RawMessage `json:"settings"`
	AsOfOffset  int64           `json:"as_of_offset"`
}

func newActivate(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "activate",
		Short: "Switch all partitions to a step version and the configured step settings",
		Args:  usageArgs(cobra.NoArgs),
		Long: `Append a version switch to every partition of locations: from there on every
tracker steps by the version and by the tracker settings of this configuration.
First roll out a binary that carries the version to all trackers: one that does
not gives its partitions back and ends. --dry-run shows what is in force, as of
the last checkpoints, and what would change.

A run that failed halfway is repeated: a second switch to the same changes
nothing. Going back is another switch, to the former version and settings.
docs/operations.md has the whole procedure.`,
		Example: `  starling topics activate --kafka-brokers k1:9092 --tracker-window 20s --dry-run
  starling topics activate --kafka-brokers k1:9092 --tracker-window 20s --yes
  starling topics activate --local-directory /var/lib/starling --step-version 1 --yes`,
	}
	with := logCommand(cmd, world)
	carried := step.Carried().Numbers()
	version := cmd.Flags().Int32("step-version", carried[len(carried)-1], fmt.Sprintf("Step version to switch to; this binary carries %v.", carried))
	dryRun := cmd.Flags().Bool("dry-run", false, "Show what is in force and what would change, and append nothing.")
	yes := cmd.Flags().Bool("yes", false, "Append the switch. Every tracker obeys it.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *dryRun == *yes {
			return usage(errors.New("give either --dry-run, to see what would change, or --yes, to append the switch"))
		}
		if !slices.Contains(carried, *version) {
			return usage(fmt.Errorf("--step-version is %d: this binary carries %v", *version, carried))
		}
		return with(func(ctx context.Context, log *openLog) error {
			record, err := step.NewVersionSwitch(*version, log.cfg.Tracker.StepSettings(log.cfg.Partitions))
			if err != nil {
				return err
			}
			result := activation{
				StepVersion: *version, Settings: record.Switch.Settings,
				GoldenDigest: hex.EncodeToString(record.Switch.GoldenDigest), DryRun: *dryRun,
			}
			var failed error
			if *dryRun {
				result.Partitions, err = foresee(ctx, log, record.Switch)
			} else {
				result.Partitions, failed = activate(ctx, log, record)
			}
			if err != nil {
				return err
			}
			return errors.Join(printActivation(world.Out, result, *asJSON), failed)
		})
	}
	return cmd
}

// foresee reports what the switch would change.
func foresee(ctx context.Context, log *openLog, to wire.VersionSwitch) ([]partitionSwitch, error) {
	found, err := inForce(ctx, log)
	if err != nil {
		return nil, err
	}
	out := make([]partitionSwitch, log.Partitions())
	for p := range out {
		out[p].Partition = int32(p)
		state, ok := found[int32(p)]
		if !ok {
			continue
		}
		out[p].InForce = &versionInForce{state.StepVersion, state.Settings, state.Offset}
		if out[p].Changes, err = changes(state.Settings, to.Settings); err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
		if state.StepVersion != to.StepVersion {
			out[p].Changes = append([]string{fmt.Sprintf("step version: %d -> %d", state.StepVersion, to.StepVersion)}, out[p].Changes...)
		}
	}
	return out, nil
}

// activate appends the switch to every partition, and fails with the names of
// those that may lack it. A crash on the way leaves some partitions switched,
// each at an offset of its own, which every tracker obeys; the others follow
// when the command is repeated.
func activate(ctx context.Context, log *openLog, record wire.Location) ([]partitionSwitch, error) {
	value := record.Append(nil)
	queued := make([]completion, log.Partitions())
	for p := range queued {
		queued[p] = log.queue(ctx, topics.Locations, int32(p), eventlog.Record{Value: value})
	}
	out := make([]partitionSwitch, len(queued))
	var missing []string
	var first error
	for p := range out {
		out[p].Partition = int32(p)
		offset, err := log.await(ctx, queued[p])
		if err == nil {
			out[p].Offset = &offset
			continue
		}
		out[p].Error = err.Error()
		missing = append(missing, fmt.Sprint(p))
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return out, fmt.Errorf("%d of %d partitions may lack the switch, repeat the command: partitions %s: %w",
			len(missing), len(out), strings.Join(missing, ", "), first)
	}
	return out, nil
}

func printActivation(w io.Writer, a activation, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, a)
	}
	_, err := fmt.Fprintf(w, "step version %d, golden outputs %s, settings %s\n\n", a.StepVersion, a.GoldenDigest, a.Settings)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if a.DryRun {
		_, _ = fmt.Fprintln(tw, "PARTITION\tIN FORCE\tAS OF OFFSET\tWOULD CHANGE")
	} else {
		_, _ = fmt.Fprintln(tw, "PARTITION\tSWITCH AT OFFSET")
	}
	for _, p := range a.Partitions {
		switch {
		case a.DryRun && p.InForce == nil:
			_, _ = fmt.Fprintf(tw, "%d\tno checkpoint yet\t-\tnot known\n", p.Partition)
		case a.DryRun:
			what := "nothing"
			if len(p.Changes) > 0 {
				what = strings.Join(p.Changes, ", ")
			}
			_, _ = fmt.Fprintf(tw, "%d\tversion %d\t%d\t%s\n", p.Partition, p.InForce.StepVersion, p.InForce.AsOfOffset, what)
		case p.Error != "":
			_, _ = fmt.Fprintf(tw, "%d\tnot known: %s\n", p.Partition, p.Error)
		default:
			_, _ = fmt.Fprintf(tw, "%d\t%d\n", p.Partition, *p.Offset)
		}
	}
	return tw.Flush()
}

// inForce returns what each partition is stepped by as of its last checkpoint;
// partitions without one are left out.
func inForce(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	if log.cfg.OnKafka() {
		return inForceOnKafka(ctx, log)
	}
	return inForceOnLocal(ctx, log)
}

// inForceOnLocal loads the claims of the log's owners, which are not running:
// the log belongs to this process.
func inForceOnLocal(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	var mu sync.Mutex
	found := map[int32]step.InForce{}
	loaded := 0
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	spec := eventlog.OwnSpec{Group: log.cfg.Tracker.Group, Source: topics.Locations, State: topics.TrackerState}
	err := log.Own(ctx, spec, func(ctx context.Context, claim eventlog.Claim) error {
		_, err := claim.Load(ctx, func(key, value []byte) error {
			state, ok, err := step.ReadInForce(key, value)
			if ok {
				mu.Lock()
				found[claim.Partition()] = state
				mu.Unlock()
			}
			return err
		})
		if err != nil {
			return err
		}
		mu.Lock()
		loaded++
		if loaded == int(log.Partitions()) {
			enough()
		}
		mu.Unlock()
		<-claim.Revoked()
		return nil
	})
	if err == nil && loaded < int(log.Partitions()) {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topics.TrackerState, err)
	}
	return found, nil
}

// inForceOnKafka reads the end of the state topic, beside the trackers that
// write it: every checkpoint reports what its partition is stepped by.
func inForceOnKafka(ctx context.Context, log *openLog) (map[int32]step.InForce, error) {
	const shortest, longer = 1 << 10, 16
	bounds, err := log.Bounds(ctx, topics.TrackerState)
	if err != nil {
		return nil, fmt.Errorf("bounds of %s: %w", topics.TrackerState, err)
	}
	// A transaction's marker stands behind its records and is never read, so
	// the end shows only in that nothing more comes.
	quick := *log
	quick.patience = min(quick.patience, 3*time.Second)
	found := map[int32]step.InForce{}
	for number, at := range bounds {
		partition := int32(number)
		for stretch := int64(shortest); ; stretch *= longer {
			from := max(at.First, at.End-stretch)
			err := quick.read(ctx, topics.TrackerState, partition, from, at.End-1, func(rec eventlog.Stored) error {
				state, ok, err := step.ReadInForce(rec.Key, rec.Value)
				if ok {
					found[partition] = state
				}
				return err
			})
			if err != nil && !errors.Is(err, errIdle) {
				return nil, err
			}
			if _, ok := found[partition]; ok || from == at.First {
				break
			}
		}
	}
	return found, nil
}

// changes lists how settings would change, sorted by name.
func changes(from, to []byte) ([]string, error) {
	before, err := flatten(from)
	if err != nil {
		return nil, err
	}
	after, err := flatten(to)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] != after[name] {
			out = append(out, fmt.Sprintf("%s: %s -> %s", name, before[name], after[name]))
		}
	}
	return out, nil
}

// flatten returns the values of a JSON object by their dotted names.
func flatten(encoded []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(encoded))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("step settings: %w", err)
	}
	out := map[string]string{}
	var walk func(prefix string, object map[string]any)
	walk = func(prefix string, object map[string]any) {
		for name, value := range object {
			if section, ok := value.(map[string]any); ok {
				walk(prefix+name+".", section)
				continue
			}
			out[prefix+name] = fmt.Sprint(value)
		}
	}
	walk("", object)
	return out, nil
}
