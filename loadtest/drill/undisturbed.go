package drill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// undisturbed runs one tracker over one partition's records of `locations`, with
// the append times that they have, and calls fn with each track: what a run that
// nobody kills publishes. The records must begin at offset 0 and have no gaps,
// and the tracker the step settings that it ships with.
func undisturbed(ctx context.Context, records []eventlog.Stored, epoch int64, fn func(sourceOffset int64, value []byte)) error {
	if len(records) == 0 {
		return nil
	}
	for i := range records {
		if records[i].Offset != int64(i) {
			return fmt.Errorf("the record at place %d has offset %d: records were deleted, or the log leaves offsets out", i, records[i].Offset)
		}
	}
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &replayed{records: records, fn: fn, finish: cancel}
	log := memlog.New(1, memlog.Options{Now: run.now, MayStepBack: true, AfterAppend: run.appended})
	log.Store().SetEpoch(epoch)
	for i := range records {
		rec := eventlog.Record{Key: records[i].Key, Value: records[i].Value}
		if err := log.Append(ctx, topics.Locations, 0, rec, noCompletion{}); err != nil {
			return fmt.Errorf("copy locations: %w", err)
		}
	}
	t, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	err = t.Run(ctx)
	run.mu.Lock()
	defer run.mu.Unlock()
	err = errors.Join(err, asked.Err(), run.err, log.Close())
	if err == nil && run.next < int64(len(records)) {
		err = fmt.Errorf("it ended at source offset %d of %d", run.next, len(records))
	}
	return err
}

// replayed gives the copied records their append times and listens to tracks.
type replayed struct {
	records []eventlog.Stored
	fn      func(int64, []byte)
	finish  func()

	mu     sync.Mutex
	copied int
	next   int64 // source offset of the next track
	err    error
}

// now is the append time of the next record that is copied. Later records
// (ticks of the replaying tracker) come after the last one.
func (r *replayed) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.UnixMilli(r.records[min(r.copied, len(r.records)-1)].AppendTimeMS)
}

func (r *replayed) appended(topic string, _ int32, rec eventlog.Stored) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case topic == topics.Locations && r.copied < len(r.records):
		if rec.AppendTimeMS != r.records[r.copied].AppendTimeMS {
			r.err = fmt.Errorf("the append time of offset %d is %d, not that of the record before or later", rec.Offset, r.records[r.copied].AppendTimeMS)
		}
		r.copied++
	case topic == topics.Tracks && r.next < int64(len(r.records)):
		var t wire.Track
		if err := t.UnmarshalLive(rec.Value); err != nil {
			return err
		}
		r.fn(t.SourceOffset, rec.Value)
		if r.next = t.SourceOffset + 1; r.next >= int64(len(r.records)) {
			r.finish()
		}
	}
	return nil
}

type noCompletion struct{}

func (noCompletion) Done(int64, error) {}
