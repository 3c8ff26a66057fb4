package matcher

import (
	"context"
	"fmt"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
)

// searchStop is how many records of a partition are rather read than searched
// further for a later start.
const searchStop = 2_000

// span is where in a partition the start lies: at or after low, before high.
type span struct {
	low, high int64
	sinceMS   int64 // the clock that the start must not be behind
}

// startOffsets returns the offset of each partition to read from: at most
// searchStop records ahead of the first whose clock is within RebuildWindow of
// the newest record's. The clock never runs back within a partition, so that
// offset is found by halving, all partitions at once.
func (m *Matcher) startOffsets(ctx context.Context, bounds []eventlog.Bounds) (map[int32]int64, error) {
	start := make(map[int32]int64, len(bounds))
	open := map[int32]*span{}
	for i, b := range bounds {
		start[int32(i)] = b.First
		if m.cfg.RebuildWindow > 0 && b.End-b.First > searchStop {
			open[int32(i)] = &span{low: b.First, high: b.End - 1}
		}
	}
	newest := make(map[int32]int64, len(open))
	for p, s := range open {
		newest[p] = s.high
	}
	clocks, err := m.clocksAt(ctx, newest)
	if err != nil {
		return nil, err
	}
	for p, s := range open {
		s.sinceMS = clocks[p] - m.cfg.RebuildWindow.Milliseconds()
	}
	for len(open) > 0 {
		middles := make(map[int32]int64, len(open))
		for p, s := range open {
			middles[p] = s.low + (s.high-s.low)/2
		}
		if clocks, err = m.clocksAt(ctx, middles); err != nil {
			return nil, err
		}
		for p, s := range open {
			if clocks[p] < s.sinceMS {
				s.low = middles[p]
			} else {
				s.high = middles[p]
			}
			if s.high-s.low <= searchStop {
				start[p] = s.low
				delete(open, p)
			}
		}
	}
	return start, nil
}

// clocksAt returns the partition's clock at the first record at or after each
// offset. Each partition must have one.
func (m *Matcher) clocksAt(ctx context.Context, offsets map[int32]int64) (map[int32]int64, error) {
	clocks := make(map[int32]int64, len(offsets))
	if len(offsets) == 0 {
		return clocks, nil
	}
	reader, err := m.log.NewReader(ctx, topics.Tracks, offsets)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reader.Close() }()
	var t wire.Track
	for len(clocks) < len(offsets) {
		batch, err := reader.Poll(ctx)
		if err != nil {
			return nil, err
		}
		if _, known := clocks[batch.Partition]; known || len(batch.Records) == 0 {
			continue
		}
		if err := t.UnmarshalLive(batch.Records[0].Value); err != nil {
			return nil, fmt.Errorf("partition %d offset %d: decode: %w", batch.Partition, batch.Records[0].Offset, err)
		}
		clocks[batch.Partition] = t.ClockMS
	}
	return clocks, nil
}
