package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

const (
	// maxReplay bounds the dead letters of one run, and so its memory.
	maxReplay = 10_000
	// recallDepth is how far behind its session's newest report a report is
	// distinguished from one that came before (see ARCHITECTURE.md).
	recallDepth = limits.MaxUnacknowledgedReports
)

// replayed is what becomes of one letter.
type replayed struct {
	Key string `json:"key"`
	// Result is "appended", "would append", "refused" or "failed".
	Result string `json:"result"`
	// Offset is where the record stands now, in the partition of its origin.
	Offset *int64 `json:"offset,omitempty"`
	// Reason reports why it was refused or failed, or what to expect of it.
	Reason string `json:"reason,omitempty"`

	deadLetter *deadLetter // without its value
	report     bool        // whether the record is a report, and then whose
	of         session
	newest     int64 // the highest sequence of its session that came after it
}

// session is a run of a device's app, and a place in it.
type session struct {
	id       uint64
	sequence int64
}

const (
	appended    = "appended"
	wouldAppend = "would append"
	refused     = "refused"
	failed      = "failed"
)

type replayOptions struct {
	dryRun, force bool
}

func newDLQReplay(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay {KEY... | --all --since TIME}",
		Short: "Append the records of dead letters once more, so that a tracker that can process them does",
		Long: `Append the records of dead letters to their partition of locations once more, as
they were, in their old order. Run it when trackers that can process them serve:
a record that is still poisonous only makes a new letter, under a new key.

The replayed record is a report that comes late. Fixes inside the vehicle's reorder
window change its state, older ones go to history marked late; those of a report
more than 64 behind its session's newest count as duplicates and change nothing.
Replaying a record twice does no harm. A report is refused, unless --force is
given, when its vehicle has since reported from another session: if the tracker no
longer knows the old session it would take it for the newest, and ignore what the
vehicle's present session says of its availability.`,
		Example: `  starling dlq replay locations/3/1017 --dry-run
  starling dlq replay locations/3/1017 locations/3/1020 --kafka-brokers k1:9092
  starling dlq replay --all --since 2h --kafka-brokers k1:9092`,
	}
	with := logCommand(cmd, world)
	filter := deadLetterFilter(cmd)
	all := cmd.Flags().Bool("all", false, "Replay all dead letters that the other flags select; needs --since.")
	var opts replayOptions
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "Print what would be done, and append nothing.")
	cmd.Flags().BoolVar(&opts.force, "force", false, "Replay reports of sessions that may be out of date, too.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		selected, err := filter(time.Now())
		if err != nil {
			return err
		}
		keys := map[string]bool{}
		partitions := map[int32]bool{}
		for _, key := range args {
			partition, err := deadLetterPartition(key)
			if err != nil {
				return err
			}
			keys[key], partitions[partition] = true, true
		}
		switch {
		case *all == (len(args) > 0):
			return usage(errors.New("give either the keys of dead letters or --all"))
		case *all && selected.since.IsZero():
			return usage(errors.New("--all needs --since: dead letters of before have been replayed, or are too old to change anything"))
		}
		if *all {
			partitions = map[int32]bool{selected.partition: true}
		}
		return with(func(ctx context.Context, log *openLog) error {
			run := replayRun{log: log, opts: opts, take: func(l *deadLetter) bool {
				return selected.takes(l) && (*all || keys[l.key()])
			}}
			for partition := range partitions {
				if err := run.collect(ctx, partition); err != nil {
					return err
				}
			}
			for key := range keys {
				if run.find(key) == nil {
					return answerNo("there is no dead letter %s (of the time that was asked for); nothing was replayed", key)
				}
			}
			return run.replay(ctx, world.Out, *asJSON)
		})
	}
	return cmd
}

// replayRun is one run of the command.
type replayRun struct {
	log  *openLog
	opts replayOptions
	take func(*deadLetter) bool
	// chosen are the dead letters by partition of origin, in their old order.
	chosen map[int32][]*replayed
	count  int
}

func (r *replayRun) find(key string) *replayed {
	partition, _ := deadLetterPartition(key)
	for _, one := range r.chosen[partition] {
		if one.Key == key {
			return one
		}
	}
	return nil
}

// collect reads the dead letters of a partition, or of all, and keeps what it has to
// know of those that are to be replayed.
func (r *replayRun) collect(ctx context.Context, partition int32) error {
	if r.chosen == nil {
		r.chosen = map[int32][]*replayed{}
	}
	return eachDeadLetter(ctx, r.log, partition, func(l *deadLetter) error {
		if l.fault != nil || !r.take(l) {
			return nil
		}
		if r.count++; r.count > maxReplay {
			return usage(fmt.Errorf("more than %d dead letters are selected: narrow them by --since, --until or --partition; nothing was replayed", maxReplay))
		}
		one := r.weigh(l)
		l.Value = nil
		r.chosen[l.storedIn] = append(r.chosen[l.storedIn], one)
		return nil
	})
}

// weigh reports what a letter's record is and refuses what can't be replayed.
func (r *replayRun) weigh(l *deadLetter) *replayed {
	one := &replayed{Key: l.key(), Result: wouldAppend, deadLetter: l}
	refuse := func(format string, args ...any) *replayed {
		one.Result, one.Reason = refused, fmt.Sprintf(format, args...)
		return one
	}
	if l.Topic != topics.Locations {
		return refuse("its topic is %q: only records of %s are replayed", l.Topic, topics.Locations)
	}
	if l.Partition != l.storedIn {
		return refuse("it stands in partition %d of %s, which no tracker does", l.storedIn, topics.DeadLetters)
	}
	var record wire.Location
	err := record.Unmarshal(l.Value)
	switch {
	case err != nil:
		one.Reason = "this build can't decode it: a tracker of the same build makes a new letter of it"
	case record.Kind == wire.KindReport:
		one.report, one.of = true, session{record.Report.SessionID, record.Report.Sequence}
	case record.Kind == wire.KindVersionSwitch:
		return refuse("it is a version switch: use `starling topics activate`")
	case record.Kind == wire.KindTick:
		return refuse("it is a tick, which has no effect any more")
	default:
		one.Reason = "it holds nothing that this build knows"
	}
	return one
}

// replay does what is left to do, partition by partition, and prints it.
func (r *replayRun) replay(ctx context.Context, w io.Writer, asJSON bool) error {
	counts := map[string]int{}
	for partition := range r.log.Partitions() {
		chosen := r.chosen[partition]
		if len(chosen) == 0 {
			continue
		}
		if err := r.lookAhead(ctx, partition, chosen); err != nil {
			return err
		}
		err := r.append(ctx, partition, chosen)
		for _, one := range chosen {
			counts[one.Result]++
			err = errors.Join(err, printReplayed(w, one, asJSON))
		}
		if err != nil {
			return err
		}
	}
	if !asJSON {
		if _, err := fmt.Fprintf(w, "%d appended, %d would be appended, %d refused, %d failed\n", counts[appended], counts[wouldAppend], counts[refused], counts[failed]); err != nil {
			return err
		}
	}
	switch {
	case counts[failed] > 0:
		return fmt.Errorf("%d dead letters were not replayed, or may not have been; replaying them again does no harm", counts[failed])
	case counts[refused] > 0:
		return answerNo("%d dead letters were refused", counts[refused])
	}
	return nil
}

// lookAhead reads what has come since the dead letters and finds those whose vehicle
// has another session by now, and those that come too late to count as new.
func (r *replayRun) lookAhead(ctx context.Context, partition int32, chosen []*replayed) error {
	bounds, err := r.log.Bounds(ctx, topics.Locations)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.Locations, err)
	}
	at := bounds[partition]
	byVehicle := map[string][]*replayed{}
	own := map[int64]bool{}
	from := at.End
	for _, one := range chosen {
		if one.report && one.Result == wouldAppend {
			vehicle := string(one.deadLetter.Key)
			byVehicle[vehicle] = append(byVehicle[vehicle], one)
			from = min(from, one.deadLetter.Offset+1)
			own[one.deadLetter.Offset] = true
		}
	}
	var record wire.Location
	err = r.log.read(ctx, topics.Locations, partition, max(from, at.First), at.End, func(rec eventlog.Stored) error {
		waiting := byVehicle[string(rec.Key)]
		if len(waiting) == 0 || own[rec.Offset] || record.Unmarshal(rec.Value) != nil || record.Kind != wire.KindReport {
			return nil
		}
		for _, one := range waiting {
			switch {
			case rec.Offset < one.deadLetter.Offset:
			case record.Report.SessionID == one.of.id:
				one.newest = max(one.newest, record.Report.Sequence)
			case !r.opts.force && one.Result == wouldAppend:
				one.Result = refused
				one.Reason = fmt.Sprintf("vehicle %s has reported from another session since (offset %d); --force replays it all the same", rec.Key, rec.Offset)
			}
		}
		return nil
	})
	for _, one := range chosen {
		if one.Result == wouldAppend && one.newest-one.of.sequence > recallDepth {
			one.Reason = fmt.Sprintf("its session is %d reports further: its fixes count as duplicates", one.newest-one.of.sequence)
		}
	}
	return err
}

// append reads the dead letters' records again and appends them, each after the one
// before it is durable. A crash on the way leaves the rest unreplayed.
func (r *replayRun) append(ctx context.Context, partition int32, chosen []*replayed) error {
	if r.opts.dryRun {
		return nil
	}
	left := map[int64]*replayed{} // by offset in dead-letters
	first, last := chosen[0].deadLetter.storedAt, int64(0)
	for _, one := range chosen {
		if one.Result == wouldAppend {
			left[one.deadLetter.storedAt] = one
		}
		last = one.deadLetter.storedAt
	}
	err := r.log.read(ctx, topics.DeadLetters, partition, first, last+1, func(rec eventlog.Stored) error {
		one := left[rec.Offset]
		if one == nil {
			return nil
		}
		delete(left, rec.Offset)
		l := readDeadLetter(partition, rec)
		if l.fault != nil {
			return l.fault
		}
		offset, err := r.log.await(ctx, r.log.queue(ctx, l.Topic, partition, eventlog.Record{Key: l.Key, Value: l.Value}))
		if err != nil {
			one.Result, one.Reason = failed, err.Error()
			return nil
		}
		one.Result, one.Offset = appended, &offset
		return nil
	})
	for _, one := range left {
		one.Result, one.Reason = failed, "the letter could not be read again"
	}
	return err
}

func printReplayed(w io.Writer, one *replayed, asJSON bool) error {
	if asJSON {
		return dialect.Print(w, one)
	}
	what := one.Result
	if one.Offset != nil {
		what = fmt.Sprintf("%s at offset %d", what, *one.Offset)
	}
	if one.Reason != "" {
		what += ": " + oneLine(one.Reason)
	}
	_, err := fmt.Fprintf(w, "%-24s  %s\n", one.Key, what)
	return err
}
