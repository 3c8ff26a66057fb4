package drill

import (
	"context"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/loadtest/drill/check"
	"github.com/starling-fleet/starling/loadtest/drill/drillog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// verify reads the log after the last process has stopped and has it judged.
func verify(ctx context.Context, o Options, reports check.Reports, fleet map[string]*starlingv1.Vehicle, logf func(string, ...any)) (*check.Checker, error) {
	log, err := o.log().Open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	c := check.New(reports, log.Partitions())
	if o.LogClock != nil {
		c.MayRebase = isOffAllTheTime
	}
	logf("reading locations")
	if err := readAll(ctx, log, topics.Locations, c.Location); err != nil {
		return nil, err
	}
	logf("reading tracks")
	if err := readAll(ctx, log, topics.Tracks, c.Track); err != nil {
		return nil, err
	}
	c.Finish(fleet)
	err = readAll(ctx, log, topics.DeadLetters, func(p int32, rec eventlog.Stored) {
		c.Findings.Add("a dead letter", "partition %d: %.300s", p, rec.Value)
	})
	if err != nil {
		return nil, err
	}
	logf("running an undisturbed tracker over the same records")
	for p := range log.Partitions() {
		var records []eventlog.Stored
		err := read(ctx, log, topics.Locations, p, func(_ int32, rec eventlog.Stored) { records = append(records, rec) })
		if err != nil {
			return nil, err
		}
		err = undisturbed(ctx, records, log.Epoch(), func(source int64, value []byte) { c.Undisturbed(p, source, value) })
		if err != nil {
			return nil, fmt.Errorf("undisturbed run of partition %d: %w", p, err)
		}
	}
	return c, nil
}

// readAll calls fn with every record of a topic, by partition.
func readAll(ctx context.Context, log eventlog.Log, topic string, fn func(int32, eventlog.Stored)) error {
	for p := range log.Partitions() {
		if err := read(ctx, log, topic, p, fn); err != nil {
			return err
		}
	}
	return nil
}

// read calls fn with every record of one partition, by offset.
func read(ctx context.Context, log eventlog.Log, topic string, partition int32, fn func(int32, eventlog.Stored)) error {
	records, failed := drillog.Read(ctx, log, topic, partition)
	for rec := range records {
		fn(partition, rec)
	}
	return failed()
}
