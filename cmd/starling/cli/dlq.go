package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

func newDLQ(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dlq",
		Short:   "List, show and replay dead letters: records that could not be processed",
		GroupID: "run",
		Args:    usageArgs(cobra.NoArgs),
		Long: `List, show and replay dead letters: records of locations that the tracker could
not decode or that made its step panic. Each stands in the topic dead-letters
with its error, under the key of its origin, topic/partition/offset. The partition
has moved on; nothing else of the vehicle was lost.

docs/operations.md says what to do about them.`,
		Example: `  starling dlq list --since 24h
  starling dlq show locations/3/1017
  starling dlq replay locations/3/1017 --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDLQList(world), newDLQShow(world), newDLQReplay(world))
	return cmd
}

// deadLetterLine is a dead letter as it is listed.
type deadLetterLine struct {
	// Key names the origin: topic/partition/offset.
	Key       string `json:"key"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	// AppendTime is when the log took the record.
	AppendTime time.Time `json:"append_time"`
	// RecordKey is the record's own key, the vehicle's id.
	RecordKey string `json:"record_key"`
	Error     string `json:"error"`
}

func (l *deadLetter) line() deadLetterLine {
	return deadLetterLine{
		Key: l.key(), Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
		AppendTime: l.appendTime(), RecordKey: string(l.Key), Error: l.Error,
	}
}

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// oneLine makes a text that came from outside fit for a line of a terminal.
func oneLine(text string) string {
	quoted := strconv.Quote(strings.Join(strings.Split(text, "\n"), "; "))
	return quoted[1 : len(quoted)-1]
}

func newDLQList(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, a line each, by partition and in the order in which they were written",
		Args:  usageArgs(cobra.NoArgs),
		Example: `  starling dlq list --kafka-brokers k1:9092 --since 24h
  starling dlq list --local-directory /var/lib/starling --partition 3 --json`,
	}
	with := logCommand(cmd, world)
	filter := deadLetterFilter(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		selected, err := filter(time.Now())
		if err != nil {
			return err
		}
		return with(func(ctx context.Context, log *openLog) error {
			var listed, unreadable int
			err := eachDeadLetter(ctx, log, selected.partition, func(l *deadLetter) error {
				switch {
				case l.fault != nil:
					unreadable++
					_, err := fmt.Fprintf(world.Err, "dead-letters partition %d offset %d is no dead letter: %v\n", l.storedIn, l.storedAt, l.fault)
					return err
				case !selected.takes(l):
					return nil
				}
				listed++
				if *asJSON {
					return dialect.Print(world.Out, l.line())
				}
				_, err := fmt.Fprintf(world.Out, "%-24s  %s  %-20s  %s\n", l.key(), l.appendTime().Format(timeLayout), oneLine(string(l.Key)), oneLine(l.Error))
				return err
			})
			if err != nil {
				return err
			}
			if !*asJSON {
				_, err = fmt.Fprintf(world.Out, "%d dead letters\n", listed)
			}
			if unreadable > 0 {
				return errors.Join(err, answerNo("%d records of %s are no dead letters", unreadable, topics.DeadLetters))
			}
			return err
		})
	}
	return cmd
}

// deadLetterInFull is a dead letter as it is shown.
type deadLetterInFull struct {
	deadLetterLine
	// Record is the record's value as far as it can be decoded.
	Record      dialect.Raw `json:"record,omitempty"`
	DecodeError string      `json:"decode_error,omitempty"`
	RecordHex   string      `json:"record_hex"`
}

func newDLQShow(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show KEY",
		Short: "Show one dead letter in full: its error, the record decoded as far as possible, and its bytes",
		Args:  usageArgs(cobra.ExactArgs(1)),
		Example: `  starling dlq show locations/3/1017 --kafka-brokers k1:9092
  starling dlq show locations/3/1017 --json`,
	}
	with := logCommand(cmd, world)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		partition, err := deadLetterPartition(args[0])
		if err != nil {
			return err
		}
		return with(func(ctx context.Context, log *openLog) error {
			var found *deadLetter
			err := eachDeadLetter(ctx, log, partition, func(l *deadLetter) error {
				if l.fault == nil && l.key() == args[0] {
					found = l
					return errStop
				}
				return nil
			})
			if err != nil {
				return err
			}
			if found == nil {
				return answerNo("there is no dead letter %s", args[0])
			}
			return printDeadLetter(world.Out, found, *asJSON)
		})
	}
	return cmd
}

// decode returns the content of the record as JSON; with an error, what could be
// decoded before the fault, or nothing.
func (l *deadLetter) decode() (dialect.Raw, error) {
	var m starlingv1.LocationRecord
	fault := proto.Unmarshal(l.Value, &m)
	out, err := protojson.MarshalOptions{AllowPartial: true}.Marshal(&m)
	if err != nil {
		return nil, errors.Join(fault, err)
	}
	if proto.Size(&m) == 0 && fault != nil {
		out = nil
	}
	return dialect.Raw(dialect.Compact(out)), fault
}

func printDeadLetter(w io.Writer, l *deadLetter, asJSON bool) error {
	record, fault := l.decode()
	if asJSON {
		full := deadLetterInFull{deadLetterLine: l.line(), Record: record, RecordHex: hex.EncodeToString(l.Value)}
		if fault != nil {
			full.DecodeError = fault.Error()
		}
		return dialect.Print(w, full)
	}
	decoded := string(record)
	if fault != nil {
		decoded = fmt.Sprintf("not as a whole: %v", fault)
		if len(record) > 0 {
			decoded += "\n            before the fault: " + string(record)
		}
	}
	_, err := fmt.Fprintf(w, `key         %s
origin      %s partition %d offset %d
appended    %s
record key  %s
error       %s
decoded     %s
value       %d bytes
%s`, l.key(), l.Topic, l.Partition, l.Offset, l.appendTime().Format(timeLayout), oneLine(string(l.Key)),
		strings.ReplaceAll(l.Error, "\n", "\n            "), decoded, len(l.Value), hex.Dump(l.Value))
	return err
}

// deadLetter is a dead letter as it was read.
type deadLetter struct {
	tracker.DeadLetter
	// storedIn and storedAt are its own partition and offset in dead-letters.
	storedIn int32
	storedAt int64
	// fault reports that the record is no dead letter.
	fault error
}

func (l *deadLetter) key() string { return fmt.Sprintf("%s/%d/%d", l.Topic, l.Partition, l.Offset) }

func (l *deadLetter) appendTime() time.Time { return time.UnixMilli(l.AppendTimeMS).UTC() }

// anyPartition selects the dead letters of all partitions.
const anyPartition = -1

// selection reports which dead letters a command is about.
type selection struct {
	partition    int32 // or anyPartition
	since, until time.Time
}

func (s *selection) takes(l *deadLetter) bool {
	at := l.appendTime()
	return (s.since.IsZero() || !at.Before(s.since)) && (s.until.IsZero() || at.Before(s.until))
}

// deadLetterFilter adds the flags that select dead letters.
func deadLetterFilter(cmd *cobra.Command) func(now time.Time) (selection, error) {
	partition := cmd.Flags().Int32("partition", anyPartition, "Only records of this partition.")
	since := cmd.Flags().String("since", "", "Only records that the log took at this time or later: 2026-01-31T12:00:00Z, or 24h for a day ago.")
	until := cmd.Flags().String("until", "", "Only records that the log took before this time.")
	return func(now time.Time) (selection, error) {
		s := selection{partition: *partition}
		if *partition < anyPartition {
			return s, usage(fmt.Errorf("--partition is %d: must not be negative", *partition))
		}
		var errSince, errUntil error
		s.since, errSince = parseMoment("since", *since, now)
		s.until, errUntil = parseMoment("until", *until, now)
		return s, usage(errors.Join(errSince, errUntil))
	}
}

// parseMoment reads a time, or how long ago it was.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--%s is %q: must be a time such as 2026-01-31T12:00:00Z, or a duration such as 24h", flag, text)
	}
	return at, nil
}

// deadLetterPartition reads the partition out of a letter's key.
func deadLetterPartition(key string) (int32, error) {
	parts := strings.Split(key, "/")
	if len(parts) == 3 {
		partition, err := strconv.ParseInt(parts[1], 10, 32)
		offset, errOffset := strconv.ParseInt(parts[2], 10, 64)
		if err == nil && errOffset == nil && partition >= 0 && offset >= 0 {
			return int32(partition), nil
		}
	}
	return 0, usage(fmt.Errorf("%q is no key of a dead letter: must be TOPIC/PARTITION/OFFSET, such as locations/3/1017", key))
}

// recallDeadLetters is how many different dead letters of a partition are remembered at
// least. A tracker repeats only what lies behind its last checkpoint, and on its
// way through a long stretch it checkpoints every few thousand records.
const recallDeadLetters = 1 << 17

// recall remembers at least the newest keys up to its limit, and at most twice
// as many.
type recall struct {
	limit      int
	young, old map[string]bool
}

// seen reports whether the key was there before, and remembers it.
func (r *recall) seen(key string) bool {
	known := r.young[key] || r.old[key]
	if r.young == nil || len(r.young) >= r.limit {
		r.young, r.old = map[string]bool{}, r.young
	}
	r.young[key] = true
	return known
}

// eachDeadLetter calls fn with every dead letter of one partition or of all, until
// fn returns errStop; of a letter that was written more than once, with the
// first. What is appended while it reads is left out. A letter stands in the
// partition of its origin.
func eachDeadLetter(ctx context.Context, log *openLog, partition int32, fn func(*deadLetter) error) error {
	if partition >= log.Partitions() {
		return usage(fmt.Errorf("partition %d: the log has partitions 0 to %d", partition, log.Partitions()-1))
	}
	bounds, err := log.Bounds(ctx, topics.DeadLetters)
	if err != nil {
		return fmt.Errorf("bounds of %s: %w", topics.DeadLetters, err)
	}
	stopped := false
	for number, at := range bounds {
		if stopped || partition != anyPartition && partition != int32(number) {
			continue
		}
		known := recall{limit: recallDeadLetters}
		err := log.read(ctx, topics.DeadLetters, int32(number), at.First, at.End, func(rec eventlog.Stored) error {
			l := readDeadLetter(int32(number), rec)
			if l.fault == nil && known.seen(l.key()) {
				return nil
			}
			err := fn(l)
			stopped = errors.Is(err, errStop)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func readDeadLetter(partition int32, rec eventlog.Stored) *deadLetter {
	l := &deadLetter{storedIn: partition, storedAt: rec.Offset}
	l.DeadLetter, l.fault = tracker.DecodeDeadLetter(rec.Value)
	if l.fault == nil && l.key() != string(rec.Key) {
		l.fault = fmt.Errorf("its key is %q, its origin %s", rec.Key, l.key())
	}
	return l
}
