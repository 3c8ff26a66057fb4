package eventlog

import (
	"context"
	"fmt"
)

// ReaderMaker is the part of Log that Resume needs.
type ReaderMaker interface {
	NewReader(ctx context.Context, topic string, start map[int32]int64) (Reader, error)
}

// Resume returns the offset from which a reader goes on after the log's epoch was
// raised. Before that it stood at an offset, and readMS is the newest stamp of what
// it had read, 0 if that is not known.
//
// A log that was shortened gives offsets anew, so what stands before the reader's
// offset may be records that it has not read, appended since. They are known by
// their stamps: the first that is stamped later than all that it had read is where
// it goes on, if that is before its offset. Where the stamps of a log that has lost
// its records begin anew below readMS, such records are passed over.
func Resume(ctx context.Context, log ReaderMaker, topic string, partition int32, at Bounds, offset, readMS int64) (int64, error) {
	low, high := at.First, max(min(offset, at.End), at.First)
	if readMS == 0 {
		return high, nil
	}
	// The newest is asked first: in a log that is whole it was read.
	for middle := high - 1; low < high; middle = low + (high-low)/2 {
		ms, err := stampAt(ctx, log, topic, partition, middle)
		if err != nil {
			return 0, fmt.Errorf("look for where to go on: %w", err)
		}
		if ms > readMS {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return high, nil
}

// stampAt returns the stamp of the first record at an offset below the end or
// behind it.
func stampAt(ctx context.Context, log ReaderMaker, topic string, partition int32, offset int64) (int64, error) {
	reader, err := log.NewReader(ctx, topic, map[int32]int64{partition: offset})
	if err != nil {
		return 0, err
	}
	defer func() { _ = reader.Close() }()
	for {
		batch, err := reader.Poll(ctx)
		if err != nil {
			return 0, err
		}
		if len(batch.Records) > 0 {
			return batch.Records[0].AppendTimeMS, nil
		}
	}
}
