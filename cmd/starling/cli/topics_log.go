package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
)

// openLog is the log that a command works on, Kafka's or the local one.
type openLog struct {
	eventlog.Log
	cfg app.Config
	// patience is how long one answer of the log may take.
	patience time.Duration
}

// errStop ends a reading early; errIdle reports that the log had nothing more to
// give within the patience.
var (
	errStop = errors.New("stop")
	errIdle = errors.New("the log gave nothing more")
)

// logCommand gives a command the log that the settings name. Such a command
// never makes a log or a topic: what it is to work on is there or it fails.
func logCommand(cmd *cobra.Command, world IO) func(run func(context.Context, *openLog) error) error {
	load := settings(cmd, world)
	patience := cmd.Flags().Duration("timeout", 30*time.Second, "How long to wait for an answer of the log.")
	return func(run func(context.Context, *openLog) error) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if *patience <= 0 {
			return usage(fmt.Errorf("--timeout is %s: must be positive", *patience))
		}
		logger, err := app.NewLogger(cfg.Log, world.Err)
		if err != nil {
			return usage(err)
		}
		cfg.Kafka.CreateTopics = false
		if !cfg.OnKafka() {
			if _, err := os.Stat(filepath.Join(cfg.Local.Directory, "state")); err != nil {
				return usage(fmt.Errorf("there is no local log in %s (--local-directory names its folder, --kafka-brokers the cluster that it is on)", cfg.Local.Directory))
			}
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *patience)
		log, err := app.OpenLog(ctx, cfg, prometheus.NewRegistry(), logger)
		cancel()
		if errors.Is(err, locallog.ErrInUse) {
			return fmt.Errorf("%w (the local log belongs to one process: stop `starling up`, run this, and start it again)", err)
		}
		if err != nil {
			return setupError(err)
		}
		err = run(cmd.Context(), &openLog{Log: log, cfg: cfg, patience: *patience})
		if closeErr := log.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close the log: %w", closeErr))
		}
		return err
	}
}

// read calls fn with the records of a partition from an offset to before end,
// oldest first, until fn returns errStop. What retention deletes on the way is
// left out.
func (l *openLog) read(ctx context.Context, topic string, partition int32, from, end int64, fn func(eventlog.Stored) error) error {
	for from < end {
		err := l.readOnce(ctx, topic, partition, &from, end, fn)
		var cut *eventlog.TruncatedError
		switch {
		case errors.As(err, &cut) && cut.First > from:
			from = cut.First
		case errors.Is(err, errStop):
			return nil
		case err != nil:
			return fmt.Errorf("read %s partition %d at offset %d: %w", topic, partition, from, err)
		}
	}
	return nil
}

func (l *openLog) readOnce(ctx context.Context, topic string, partition int32, next *int64, end int64, fn func(eventlog.Stored) error) error {
	reader, err := l.NewReader(ctx, topic, map[int32]int64{partition: *next})
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	for *next < end {
		pollCtx, cancel := context.WithTimeout(ctx, l.patience)
		batch, err := reader.Poll(pollCtx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return fmt.Errorf("%w for %s", errIdle, l.patience)
		}
		if err != nil {
			return err
		}
		for _, rec := range batch.Records {
			if rec.Offset >= end {
				return errStop
			}
			if err := fn(rec); err != nil {
				return err
			}
			*next = rec.Offset + 1
		}
	}
	return nil
}

// appendResult is what became of one append.
type appendResult struct {
	offset int64
	err    error
}

// completion is one that keeps what it receives.
type completion chan appendResult

// Done implements eventlog.Completion.
func (c completion) Done(offset int64, err error) { c <- appendResult{offset, err} }

// queue hands a record to the log; await returns what became of it.
func (l *openLog) queue(ctx context.Context, topic string, partition int32, rec eventlog.Record) completion {
	done := make(completion, 1)
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	if err := l.Append(ctx, topic, partition, rec, done); err != nil {
		done <- appendResult{err: fmt.Errorf("the log did not take it: %w", err)}
	}
	return done
}

func (l *openLog) await(ctx context.Context, done completion) (int64, error) {
	patience := time.NewTimer(l.patience)
	defer patience.Stop()
	select {
	case f := <-done:
		return f.offset, f.err
	case <-patience.C:
		return 0, fmt.Errorf("no answer for %s: it may be in the log or not", l.patience)
	case <-ctx.Done():
		return 0, fmt.Errorf("it may be in the log or not: %w", ctx.Err())
	}
}
