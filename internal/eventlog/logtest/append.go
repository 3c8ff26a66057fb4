package logtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

var appendCases = []testCase{
	{"append/order of one goroutine", nil, orderOfOne},
	{"append/concurrent appenders", nil, concurrentAppenders},
	{"append/acked means readable", nil, ackedMeansReadable},
	{"append/keys and values", nil, keysAndValues},
	{"append/append time", nil, appendTime},
	{"append/too large", nil, tooLarge},
	{"append/unknown topic", nil, unknownTopic},
	{"append/visible only when durable", []string{"Hold"}, visibleWhenDurable},
	{"append/blocks while the buffer is full", []string{"Hold", "BufferBytes"}, blocksWhenFull},
	{"append/close fails what is queued", []string{"Hold"}, closeFailsQueued},
	{"append/after close", nil, afterClose},
}

func orderOfOne(t *testing.T, h *Harness) {
	const n = 600
	f := newOutcomes()
	want := make(map[int32][]string)
	for i := range n {
		p := int32(i % Partitions)
		v := fmt.Sprintf("value-%d", i)
		want[p] = append(want[p], v)
		require.NoError(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, p, rec("k", v), f.one(i)))
	}
	acked := make(map[int32][]outcome)
	for _, o := range f.waitOK(t, n) {
		p := int32(o.id % Partitions)
		acked[p] = append(acked[p], o)
	}
	got := readAll(t, h.Log, topics.Locations, fromFirst(t, h.Log, topics.Locations), n)
	for p, w := range want {
		require.Equal(t, w, values(got[p]), "partition %d", p)
		for i, o := range acked[p] {
			require.Equal(t, int(p)+i*Partitions, o.id, "completions come in append order")
			require.Equal(t, got[p][i].Offset, o.offset, "the offset acked is the offset read")
		}
	}
	require.Len(t, f.all(), n, "exactly once")
}

func concurrentAppenders(t *testing.T, h *Harness) {
	const writers, each = 12, 200
	f := newOutcomes()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := w*each + i
				if err := h.Log.Append(ctxFor(t, timeout), topics.Tracks, int32(i%Partitions), rec(fmt.Sprint(w), fmt.Sprint(id)), f.one(id)); err != nil {
					t.Errorf("append %d: %v", id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[int]bool)
	last := make(map[int]int64) // by writer and partition
	for _, o := range f.waitOK(t, writers*each) {
		require.False(t, seen[o.id], "append %d was completed twice", o.id)
		seen[o.id] = true
		lane := o.id/each*Partitions + o.id%each%Partitions
		if before, ok := last[lane]; ok {
			require.Greater(t, o.offset, before, "append %d", o.id)
		}
		last[lane] = o.offset
	}
	got := readAll(t, h.Log, topics.Tracks, fromFirst(t, h.Log, topics.Tracks), writers*each)
	newest := make(map[string]int)
	for _, records := range got {
		clear(newest)
		for _, s := range records {
			var id int
			_, err := fmt.Sscan(string(s.Value), &id)
			require.NoError(t, err)
			require.True(t, seen[id], "each record is there once")
			delete(seen, id)
			if before, ok := newest[string(s.Key)]; ok {
				require.Greater(t, id, before, "the order of one appender is kept")
			}
			newest[string(s.Key)] = id
		}
	}
	require.Empty(t, seen)
}

func ackedMeansReadable(t *testing.T, h *Harness) {
	for i := range 20 {
		p := int32(i % Partitions)
		offset := appendN(t, h.Log, topics.Locations, p, fmt.Sprint(i), 1)[0]
		bounds, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
		require.NoError(t, err)
		require.Equal(t, offset+1, bounds[p].End)
		got := readAll(t, h.Log, topics.Locations, map[int32]int64{p: offset}, 1)
		require.Equal(t, []string{fmt.Sprintf("%d-0", i)}, values(got[p]))
	}
}

func keysAndValues(t *testing.T, h *Harness) {
	decl := maxRecord(t, topics.Locations)
	big := bytes.Repeat([]byte("0123456789abcdef"), decl/16)
	records := []eventlog.Record{
		rec("", ""), rec("", "v"), rec("k", ""), {Key: nil, Value: []byte("v")},
		rec("\x00\xff\x00", "\x00\x01\xff\xfe\n"), rec(strings.Repeat("k", 1000), "v"),
		{Key: []byte("12345678"), Value: big[:decl-8]}, rec("after", "the large one"),
	}
	f := newOutcomes()
	for i, r := range records {
		require.NoError(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, 1, r, f.one(i)))
	}
	f.waitOK(t, len(records))
	got := readAll(t, h.Log, topics.Locations, map[int32]int64{1: fromFirst(t, h.Log, topics.Locations)[1]}, len(records))[1]
	for i, r := range records {
		require.Equal(t, string(r.Key), string(got[i].Key), "record %d", i)
		require.True(t, bytes.Equal(r.Value, got[i].Value), "value of record %d", i)
	}
}

func appendTime(t *testing.T, h *Harness) {
	before := time.Now().Add(-2 * time.Second).UnixMilli()
	for i := range 10 {
		appendN(t, h.Log, topics.Locations, 2, fmt.Sprint(i), 5)
	}
	after := time.Now().Add(2 * time.Second).UnixMilli()
	got := readAll(t, h.Log, topics.Locations, map[int32]int64{2: fromFirst(t, h.Log, topics.Locations)[2]}, 50)[2]
	last := before
	for _, s := range got {
		require.GreaterOrEqual(t, s.AppendTimeMS, last, "offset %d", s.Offset)
		last = s.AppendTimeMS
	}
	require.LessOrEqual(t, last, after)
}

func tooLarge(t *testing.T, h *Harness) {
	f := newOutcomes()
	over := eventlog.Record{Key: []byte("k"), Value: make([]byte, maxRecord(t, topics.Locations))}
	err := h.Log.Append(ctxFor(t, timeout), topics.Locations, 0, over, f.one(0))
	if err == nil {
		err = f.wait(t, 1)[0].err
	} else {
		require.Empty(t, f.all(), "a refused append is not completed")
	}
	require.ErrorIs(t, err, eventlog.ErrTooLarge)
	appendN(t, h.Log, topics.Locations, 0, "after", 3)
	got := readAll(t, h.Log, topics.Locations, map[int32]int64{0: fromFirst(t, h.Log, topics.Locations)[0]}, 3)
	require.Equal(t, []string{"after-0", "after-1", "after-2"}, values(got[0]))
}

func unknownTopic(t *testing.T, h *Harness) {
	ctx, f := ctxFor(t, timeout), newOutcomes()
	for _, c := range []struct {
		topic     string
		partition int32
	}{{"no-such-topic", 0}, {topics.Locations, Partitions}, {topics.Locations, -1}} {
		require.ErrorIs(t, h.Log.Append(ctx, c.topic, c.partition, rec("k", "v"), f.one(0)), eventlog.ErrUnknownTopic)
		_, err := h.Log.NewReader(ctx, c.topic, map[int32]int64{c.partition: 0})
		require.ErrorIs(t, err, eventlog.ErrUnknownTopic)
	}
	_, err := h.Log.Bounds(ctx, "no-such-topic")
	require.ErrorIs(t, err, eventlog.ErrUnknownTopic)
	serve := func(context.Context, eventlog.Claim) error { return nil }
	require.ErrorIs(t, h.Log.Own(ctx, eventlog.OwnSpec{Group: "g", Source: "no-such-topic", State: topics.TrackerState}, serve), eventlog.ErrUnknownTopic)
	require.ErrorIs(t, h.Log.Own(ctx, eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: "no-such-topic"}, serve), eventlog.ErrUnknownTopic)
	require.Empty(t, f.all())
}

// visibleWhenDurable holds durability back and looks.
func visibleWhenDurable(t *testing.T, h *Harness) {
	first := appendN(t, h.Log, topics.Locations, 0, "before", 1)[0]
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, map[int32]int64{0: first + 1})
	require.NoError(t, err)
	defer closeReader(t, r)

	release := h.Hold(t)
	f := newOutcomes()
	for i := range 10 {
		require.NoError(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, 0, rec("k", fmt.Sprint(i)), f.one(i)))
	}
	quiet(t, r)
	bounds, err := h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, first+1, bounds[0].End, "what is not durable is not counted")
	require.Empty(t, f.all(), "what is not durable is not completed")
	release()
	f.waitOK(t, 10)
	require.Len(t, readN(t, r, 10)[0], 10)
}

func blocksWhenFull(t *testing.T, h *Harness) {
	release := h.Hold(t)
	f := newOutcomes()
	const size = 1 << 10
	taken, blocked := 0, error(nil)
	for i := 0; i < 2*h.BufferBytes/size+8 && blocked == nil; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		blocked = h.Log.Append(ctx, topics.Locations, 0, eventlog.Record{Value: make([]byte, size)}, f.one(i))
		cancel()
		if blocked == nil {
			taken++
		}
	}
	require.ErrorIs(t, blocked, context.DeadlineExceeded, "%d appends of %d bytes", taken, size)
	waiting := make(chan error, 1)
	go func() {
		waiting <- h.Log.Append(context.Background(), topics.Locations, 0, rec("", "waited"), f.one(taken))
	}()
	release()
	require.NoError(t, <-waiting, "an append that waits goes on when there is capacity")
	got := f.waitOK(t, taken+1)
	for i, o := range got {
		require.Equal(t, i, o.id, "in order, and none for the append that was refused")
	}
}

func closeFailsQueued(t *testing.T, h *Harness) {
	release := h.Hold(t)
	f := newOutcomes()
	for i := range 100 {
		require.NoError(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, 1, rec("k", fmt.Sprint(i)), f.one(i)))
	}
	closed := make(chan error, 1)
	go func() { closed <- h.Log.Close() }()
	release()
	require.NoError(t, <-closed)
	for i, o := range f.wait(t, 100) {
		require.Equal(t, i, o.id, "every append is completed once, in order")
		if o.err != nil {
			require.ErrorIs(t, o.err, eventlog.ErrClosed)
		}
	}
}

func afterClose(t *testing.T, h *Harness) {
	appendN(t, h.Log, topics.Locations, 0, "x", 1)
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Locations, map[int32]int64{1: 0})
	require.NoError(t, err)
	polled := make(chan error, 1)
	go func() {
		_, err := r.Poll(context.Background())
		polled <- err
	}()
	owned := make(chan error, 1)
	started := make(chan struct{}, Partitions)
	go func() {
		owned <- h.Log.Own(context.Background(), spec, func(ctx context.Context, _ eventlog.Claim) error {
			started <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	select {
	case <-started:
	case <-time.After(h.Patience + timeout):
		require.FailNow(t, "no partition was owned")
	}
	require.NoError(t, h.Log.Close())
	for what, ch := range map[string]chan error{"a poll that waits": polled, "an owner": owned} {
		select {
		case err := <-ch:
			require.ErrorIs(t, err, eventlog.ErrClosed, what)
		case <-time.After(timeout):
			require.FailNow(t, what+" is not ended by Close")
		}
	}
	ctx, f := ctxFor(t, timeout), newOutcomes()
	require.ErrorIs(t, h.Log.Append(ctx, topics.Locations, 0, rec("k", "v"), f.one(0)), eventlog.ErrClosed)
	_, err = r.Poll(ctx)
	require.ErrorIs(t, err, eventlog.ErrClosed)
	require.ErrorIs(t, h.Log.Own(ctx, spec, func(context.Context, eventlog.Claim) error { return nil }), eventlog.ErrClosed)
	require.NoError(t, r.Close())
	require.NoError(t, h.Log.Close(), "closing twice is harmless")
	require.Empty(t, f.all())
}
