package logtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

var readCases = []testCase{
	{"read/bounds", nil, boundsOfTopic},
	{"read/from the middle", nil, fromTheMiddle},
	{"read/only the named partitions", nil, namedPartitions},
	{"read/poll waits and wakes up", nil, pollWaits},
	{"read/poll ends with its context", nil, pollCancelled},
	{"read/every partition gets its turn", nil, fairness},
	{"read/end shows who has caught up", nil, batchEnd},
	{"read/two readers see the same", nil, twoReaders},
	{"read/closed reader", nil, closedReader},
	{"read/another process reads too", []string{"Another"}, anotherReads},
	{"read/truncated", []string{"Truncate"}, truncated},
	{"read/truncated to nothing", []string{"Truncate"}, truncatedAway},
}

func boundsOfTopic(t *testing.T, h *Harness) {
	b, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Len(t, b, Partitions)
	for p := range b {
		require.Equal(t, b[p].End, b[p].First, "partition %d of an empty topic", p)
	}
	offsets := appendN(t, h.Log, topics.Locations, 3, "x", 7)
	after, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, b[:3], after[:3])
	require.Equal(t, eventlog.Bounds{First: offsets[0], End: offsets[6] + 1}, after[3])
	other, err := h.Log.Bounds(ctxFor(t, timeout), topics.Tracks)
	require.NoError(t, err)
	require.Equal(t, other[3].First, other[3].End, "topics are apart")
}

func fromTheMiddle(t *testing.T, h *Harness) {
	offsets := appendN(t, h.Log, topics.Locations, 0, "x", 3000)
	for _, from := range []int{0, 1, 999, 1500, 2998, 2999} {
		got := readAll(t, h.Log, topics.Locations, map[int32]int64{0: offsets[from]}, 3000-from)[0]
		require.Len(t, got, 3000-from)
		for i, s := range got {
			require.Equal(t, offsets[from+i], s.Offset)
			require.Equal(t, fmt.Sprintf("x-%d", from+i), string(s.Value))
		}
	}
}

func namedPartitions(t *testing.T, h *Harness) {
	for p := range int32(Partitions) {
		appendN(t, h.Log, topics.Locations, p, fmt.Sprint(p), 10)
	}
	start := fromFirst(t, h.Log, topics.Locations)
	delete(start, 0)
	delete(start, 2)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	got := readN(t, r, 20)
	require.Len(t, got[1], 10)
	require.Len(t, got[3], 10)
	quiet(t, r)
}

func pollWaits(t *testing.T, h *Harness) {
	start := fromFirst(t, h.Log, topics.Tracks)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Tracks, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	for i := range 5 {
		got := make(chan eventlog.Batch, 1)
		failed := make(chan error, 1)
		go func() {
			b, err := r.Poll(ctxFor(t, timeout))
			if err != nil {
				failed <- err
				return
			}
			got <- b
		}()
		select {
		case <-got:
			require.FailNow(t, "poll answered before there was a record")
		case err := <-failed:
			require.NoError(t, err)
		case <-time.After(20 * time.Millisecond):
		}
		p := int32(i % Partitions)
		appendN(t, h.Log, topics.Tracks, p, fmt.Sprint(i), 1)
		select {
		case b := <-got:
			require.Equal(t, p, b.Partition)
			require.Equal(t, []string{fmt.Sprintf("%d-0", i)}, values(b.Records))
		case err := <-failed:
			require.NoError(t, err)
		}
	}
}

func pollCancelled(t *testing.T, h *Harness) {
	start := fromFirst(t, h.Log, topics.Locations)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	polled := make(chan error, 1)
	go func() {
		_, err := r.Poll(ctx)
		polled <- err
	}()
	cancel()
	require.ErrorIs(t, <-polled, context.Canceled)
	appendN(t, h.Log, topics.Locations, 1, "later", 1)
	require.Equal(t, []string{"later-0"}, values(readN(t, r, 1)[1]), "the reader lives on")
}

// fairness keeps partition 0 busy and asks for the others all the same.
func fairness(t *testing.T, h *Harness) {
	value := make([]byte, 512)
	f := newOutcomes()
	const backlog = 5000
	for i := range backlog {
		require.NoError(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, 0, eventlog.Record{Value: value}, f.one(i)))
	}
	f.waitOK(t, backlog)
	for p := int32(1); p < Partitions; p++ {
		appendN(t, h.Log, topics.Locations, p, "rare", 1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fed := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			if err := h.Log.Append(ctx, topics.Locations, 0, eventlog.Record{Value: value}, newOutcomes().one(i)); err != nil {
				fed <- err
				return
			}
		}
	}()
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, fromFirst(t, h.Log, topics.Locations))
	require.NoError(t, err)
	defer closeReader(t, r)
	seen := make(map[int32]bool)
	for polls := 0; len(seen) < Partitions; polls++ {
		require.Less(t, polls, 2000, "one busy partition starves %v", seen)
		b, err := r.Poll(ctxFor(t, timeout))
		require.NoError(t, err)
		seen[b.Partition] = true
	}
	cancel()
	require.ErrorIs(t, <-fed, context.Canceled)
}

func batchEnd(t *testing.T, h *Harness) {
	offsets := appendN(t, h.Log, topics.Locations, 0, "x", 2500)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, map[int32]int64{0: offsets[0]})
	require.NoError(t, err)
	defer closeReader(t, r)
	end := offsets[2499] + 1
	for {
		b, err := r.Poll(ctxFor(t, timeout))
		require.NoError(t, err)
		requireBatch(t, b)
		require.LessOrEqual(t, b.End, end)
		if b.Records[len(b.Records)-1].Offset+1 == end {
			require.Equal(t, end, b.End, "a reader that has everything learns so")
			return
		}
	}
}

func twoReaders(t *testing.T, h *Harness) {
	start := fromFirst(t, h.Log, topics.Tracks)
	for p := range int32(Partitions) {
		appendN(t, h.Log, topics.Tracks, p, fmt.Sprint(p), 200)
	}
	a := readAll(t, h.Log, topics.Tracks, start, 200*Partitions)
	b := readAll(t, h.Log, topics.Tracks, start, 200*Partitions)
	require.Equal(t, a, b)
}

func closedReader(t *testing.T, h *Harness) {
	appendN(t, h.Log, topics.Locations, 0, "x", 1)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, fromFirst(t, h.Log, topics.Locations))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = r.Poll(ctxFor(t, timeout))
	require.ErrorIs(t, err, eventlog.ErrClosed)
	require.NoError(t, r.Close(), "closing twice is harmless")
	appendN(t, h.Log, topics.Locations, 0, "the log lives on", 1)
}

func anotherReads(t *testing.T, h *Harness) {
	other := h.Another(t)
	require.Equal(t, h.Log.Partitions(), other.Partitions())
	require.Equal(t, h.Log.Epoch(), other.Epoch())
	start := fromFirst(t, h.Log, topics.Locations)
	r, err := other.NewReader(ctxFor(t, timeout), topics.Locations, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	appendN(t, h.Log, topics.Locations, 1, "one", 1)
	require.Equal(t, []string{"one-0"}, values(readN(t, r, 1)[1]))
	appendN(t, other, topics.Locations, 1, "two", 1)
	require.Equal(t, []string{"two-0"}, values(readN(t, r, 1)[1]))
}

func truncated(t *testing.T, h *Harness) {
	offsets := appendN(t, h.Log, topics.Locations, 2, "x", 100)
	behind, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, map[int32]int64{2: offsets[0]})
	require.NoError(t, err)
	defer closeReader(t, behind)
	h.Truncate(t, topics.Locations, 2, offsets[60])

	bounds, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, eventlog.Bounds{First: offsets[60], End: offsets[99] + 1}, bounds[2])

	_, err = behind.Poll(ctxFor(t, timeout))
	var gone *eventlog.TruncatedError
	require.True(t, errors.As(err, &gone), "%v", err)
	require.Equal(t, eventlog.TruncatedError{Topic: topics.Locations, Partition: 2, Want: offsets[0], First: offsets[60]}, *gone)

	late, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, map[int32]int64{2: offsets[59]})
	if err == nil { // it may also learn so at once
		defer closeReader(t, late)
		_, err = late.Poll(ctxFor(t, timeout))
	}
	require.True(t, errors.As(err, &gone), "%v", err)
	require.Equal(t, offsets[59], gone.Want)

	got := readAll(t, h.Log, topics.Locations, map[int32]int64{2: gone.First}, 40)[2]
	require.Equal(t, "x-60", string(got[0].Value))
	require.Len(t, got, 40)
}

func truncatedAway(t *testing.T, h *Harness) {
	offsets := appendN(t, h.Log, topics.Locations, 2, "x", 100)
	end := offsets[99] + 1
	h.Truncate(t, topics.Locations, 2, end)
	bounds, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, eventlog.Bounds{First: end, End: end}, bounds[2], "First is End when nothing is kept")
	more := appendN(t, h.Log, topics.Locations, 2, "y", 1)
	require.GreaterOrEqual(t, more[0], end, "offsets are not used again")
	require.Equal(t, []string{"y-0"}, values(readAll(t, h.Log, topics.Locations, map[int32]int64{2: end}, 1)[2]))
}
