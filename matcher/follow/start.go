package follow

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

// jumpMS is how far the stream time may go between two records that are near to
// each other without being taken for a jump.
const jumpMS = 60_000

// span is where in a partition the start lies: at or after low, before high.
type span struct {
	first, low, high int64
	lowMS, highMS    int64 // stream times there
	sinceMS          int64 // the stream time that the start must not be behind
	jumped           bool  // a jump has been looked for
}

// narrow takes in the stream time at an offset between low and high.
func (s *span) narrow(offset, streamMS int64) {
	if streamMS < s.sinceMS {
		s.low, s.lowMS = offset, streamMS
	} else {
		s.high, s.highMS = offset, streamMS
	}
}

// found returns whether the start is low. Where the stream time has jumped
// there, vehicles that reported while the jump was not yet believed count as
// refreshed after it, so as much is wanted from before it once more.
func (s *span) found(window int64) bool {
	if s.high-s.low > searchStop {
		return false
	}
	if s.low == s.first || s.jumped || s.highMS-s.lowMS <= jumpMS {
		return true
	}
	s.jumped = true
	s.sinceMS, s.high, s.highMS, s.low = s.lowMS-window, s.low, s.lowMS, s.first
	return s.high-s.low <= searchStop
}

// startOffsets returns the offset of each partition to read from: at most
// searchStop records ahead of one whose stream time is behind the newest
// record's by RebuildWindow, after which it is not. Such a place is found by
// halving, all partitions at once, also where the stream time has jumped back.
func (f *Follower) startOffsets(ctx context.Context, bounds []eventlog.Bounds) (map[int32]int64, error) {
	window := f.cfg.RebuildWindow.Milliseconds()
	start := make(map[int32]int64, len(bounds))
	open := map[int32]*span{}
	for i, b := range bounds {
		start[int32(i)] = b.First
		if f.cfg.RebuildWindow > 0 && b.End-b.First > searchStop {
			open[int32(i)] = &span{first: b.First, low: b.First, high: b.End - 1}
		}
	}
	newest := make(map[int32]int64, len(open))
	for p, s := range open {
		newest[p] = s.high
	}
	clocks, err := f.clocksAt(ctx, newest)
	if err != nil {
		return nil, err
	}
	for p, s := range open {
		s.highMS, s.sinceMS = clocks[p], clocks[p]-window
	}
	for len(open) > 0 {
		middles := make(map[int32]int64, len(open))
		for p, s := range open {
			middles[p] = s.low + (s.high-s.low)/2
		}
		if clocks, err = f.clocksAt(ctx, middles); err != nil {
			return nil, err
		}
		for p, s := range open {
			if s.narrow(middles[p], clocks[p]); s.found(window) {
				start[p] = s.low
				delete(open, p)
			}
		}
	}
	return start, nil
}

// clocksAt returns the stream time at the first record at or after each
// offset. Each partition must have one.
func (f *Follower) clocksAt(ctx context.Context, offsets map[int32]int64) (map[int32]int64, error) {
	clocks := make(map[int32]int64, len(offsets))
	if len(offsets) == 0 {
		return clocks, nil
	}
	reader, err := f.log.NewReader(ctx, topics.Tracks, offsets)
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
