package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

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
