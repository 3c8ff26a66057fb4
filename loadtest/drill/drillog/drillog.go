// Package drillog is the log of a drill, as its processes are set to it and as it is
// read when the last of them has stopped. What is read is judged elsewhere.
package drillog

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Place is where a drill's log is.
type Place struct {
	// Dir is the drill's folder.
	Dir string
	// KafkaBrokers is empty for the local log, which is in Dir.
	KafkaBrokers []string
	// Partitions of every topic.
	Partitions int
}

// TopicPrefix is what the names of topics begin with on Kafka, so that drills may
// share a cluster.
func (p Place) TopicPrefix() string { return filepath.Base(p.Dir) + "-" }

// LocalDir is the folder of the local log.
func (p Place) LocalDir() string { return filepath.Join(p.Dir, "log") }

// Open opens the log; the caller closes it.
func (p Place) Open(ctx context.Context) (eventlog.Log, error) {
	quiet := slog.New(slog.DiscardHandler)
	if len(p.KafkaBrokers) > 0 {
		cfg := kafkalog.DefaultConfig()
		cfg.Brokers, cfg.Partitions, cfg.TopicPrefix = p.KafkaBrokers, p.Partitions, p.TopicPrefix()
		log, err := kafkalog.Open(ctx, cfg, topics.All(), prometheus.NewRegistry(), quiet)
		if err != nil {
			return nil, fmt.Errorf("open the log on Kafka: %w", err)
		}
		return log, nil
	}
	cfg := locallog.DefaultConfig()
	cfg.Directory, cfg.Partitions = p.LocalDir(), p.Partitions
	log, err := locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), quiet)
	if err != nil {
		return nil, fmt.Errorf("open the local log: %w", err)
	}
	return log, nil
}

// Read returns every record of one partition that is there, by offset; failed
// returns why it ended early, once the records were taken.
func Read(ctx context.Context, log eventlog.Log, topic string, partition int32) (records iter.Seq[eventlog.Stored], failed func() error) {
	var err error
	return func(yield func(eventlog.Stored) bool) { err = read(ctx, log, topic, partition, yield) },
		func() error {
			if err != nil {
				return fmt.Errorf("read %s partition %d: %w", topic, partition, err)
			}
			return nil
		}
}

func read(ctx context.Context, log eventlog.Log, topic string, partition int32, yield func(eventlog.Stored) bool) error {
	all, err := log.Bounds(ctx, topic)
	if err != nil {
		return err
	}
	bounds := all[partition]
	if bounds.First == bounds.End {
		return nil
	}
	r, err := log.NewReader(ctx, topic, map[int32]int64{partition: bounds.First})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for next := bounds.First; next < bounds.End; {
		batch, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("from %d: %w", next, err)
		}
		for _, rec := range batch.Records {
			if err := ctx.Err(); err != nil {
				return err
			}
			next = rec.Offset + 1
			if !yield(rec) {
				return nil
			}
		}
	}
	return nil
}
