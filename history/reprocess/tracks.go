package reprocess

import (
	"context"
	"fmt"

	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// tracks reads a partition of `tracks` along with its source.
type tracks struct {
	ctx    context.Context //nolint:containedctx // it lives within one call of Run
	log    Log
	number int32
	bounds eventlog.Bounds

	reader  eventlog.Reader
	records []eventlog.Stored
	next    int64 // offset behind the last record that was taken
	track   wire.Track
	key     string
	held    bool // track is there and has not been used
	rows    []row.Fix
}

func newTracks(ctx context.Context, log Log, number int32, bounds eventlog.Bounds) *tracks {
	return &tracks{ctx: ctx, log: log, number: number, bounds: bounds, next: bounds.First}
}

func (t *tracks) close() {
	if t.reader != nil {
		_ = t.reader.Close()
	}
}

// at returns the rows that the record of `locations` at an offset gave; nil when
// `tracks` has no record of it. Offsets ascend from call to call. Rows are valid until
// the next call.
func (t *tracks) at(source int64) ([]row.Fix, error) {
	for {
		if t.held && t.track.SourceOffset > source {
			return nil, nil
		}
		if t.held && t.track.SourceOffset == source {
			t.held = false
			t.rows = row.Append(t.rows[:0], t.number, t.key, &t.track)
			return t.rows, nil
		}
		t.held = false // behind, or published again
		more, err := t.advance()
		if err != nil || !more {
			return nil, err
		}
	}
}

// advance decodes the next record; it returns false at the end of the log.
func (t *tracks) advance() (bool, error) {
	for len(t.records) == 0 {
		if t.next >= t.bounds.End {
			return false, nil
		}
		if t.reader == nil {
			var err error
			if t.reader, err = t.log.NewReader(t.ctx, topics.Tracks, map[int32]int64{t.number: t.next}); err != nil {
				return false, err
			}
		}
		b, err := t.reader.Poll(t.ctx)
		if err != nil {
			return false, fmt.Errorf("read %s at %d: %w", topics.Tracks, t.next, err)
		}
		t.records = b.Records
		if len(b.Records) == 0 {
			t.next = max(t.next, b.End)
		}
	}
	r := t.records[0]
	t.records = t.records[1:]
	t.next = r.Offset + 1
	if err := t.track.Unmarshal(r.Value); err != nil {
		return true, nil //nolint:nilerr // as history does, which counts it: the record has no rows
	}
	t.key, t.held = string(r.Key), true
	return true, nil
}
