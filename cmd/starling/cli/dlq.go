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

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
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
					return printJSON(world.Out, l.line())
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
	Record      rawJSON `json:"record,omitempty"`
	DecodeError string  `json:"decode_error,omitempty"`
	RecordHex   string  `json:"record_hex"`
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

// decode returns what the record says as JSON; with an error, what could be
// decoded before the fault, or nothing.
func (l *deadLetter) decode() (rawJSON, error) {
	var m starlingv1.LocationRecord
	fault := proto.Unmarshal(l.Value, &m)
	out, err := protojson.MarshalOptions{AllowPartial: true}.Marshal(&m)
	if err != nil {
		return nil, errors.Join(fault, err)
	}
	if proto.Size(&m) == 0 && fault != nil {
		out = nil
	}
	return rawJSON(compactJSON(out)), fault
}

func printDeadLetter(w io.Writer, l *deadLetter, asJSON bool) error {
	record, fault := l.decode()
	if asJSON {
		full := deadLetterInFull{deadLetterLine: l.line(), Record: record, RecordHex: hex.EncodeToString(l.Value)}
		if fault != nil {
			full.DecodeError = fault.Error()
		}
		return printJSON(w, full)
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
