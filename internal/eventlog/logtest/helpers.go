package logtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// outcomes collects what completions were given, in the order of the calls.
type outcomes struct {
	mu      sync.Mutex
	calls   []outcome
	arrived chan struct{} // capacity 1
}

type outcome struct {
	id     int // which append
	offset int64
	err    error
}

func newOutcomes() *outcomes { return &outcomes{arrived: make(chan struct{}, 1)} }

// one returns the completion of append id.
func (f *outcomes) one(id int) eventlog.Completion { return completion{f, id} }

type completion struct {
	f  *outcomes
	id int
}

func (c completion) Done(offset int64, err error) {
	c.f.mu.Lock()
	c.f.calls = append(c.f.calls, outcome{c.id, offset, err})
	c.f.mu.Unlock()
	select {
	case c.f.arrived <- struct{}{}:
	default:
	}
}

func (f *outcomes) all() []outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]outcome(nil), f.calls...)
}

// wait returns all outcomes once there are n.
func (f *outcomes) wait(t *testing.T, n int) []outcome {
	t.Helper()
	deadline := time.After(timeout)
	for {
		if got := f.all(); len(got) >= n {
			return got
		}
		select {
		case <-f.arrived:
		case <-deadline:
			require.FailNow(t, "completions are missing", "got %d of %d", len(f.all()), n)
		}
	}
}

// waitOK is wait for appends that must all have worked.
func (f *outcomes) waitOK(t *testing.T, n int) []outcome {
	t.Helper()
	got := f.wait(t, n)
	for _, o := range got {
		require.NoError(t, o.err, "append %d", o.id)
	}
	return got
}

func rec(key, value string) eventlog.Record {
	return eventlog.Record{Key: []byte(key), Value: []byte(value)}
}

// appendN appends records "prefix-0" to "prefix-(n-1)" and waits for them. It
// returns their offsets.
func appendN(t *testing.T, l eventlog.Log, topic string, partition int32, prefix string, n int) []int64 {
	t.Helper()
	f := newOutcomes()
	for i := range n {
		require.NoError(t, l.Append(ctxFor(t, timeout), topic, partition, rec("k", fmt.Sprintf("%s-%d", prefix, i)), f.one(i)))
	}
	offsets := make([]int64, n)
	for _, o := range f.waitOK(t, n) {
		offsets[o.id] = o.offset
	}
	return offsets
}

// readAll reads the partitions from the given offsets until it has n records.
func readAll(t *testing.T, l eventlog.Log, topic string, start map[int32]int64, n int) map[int32][]eventlog.Stored {
	t.Helper()
	r, err := l.NewReader(ctxFor(t, timeout), topic, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	return readN(t, r, n)
}

func readN(t *testing.T, r eventlog.Reader, n int) map[int32][]eventlog.Stored {
	t.Helper()
	got := make(map[int32][]eventlog.Stored)
	for count := 0; count < n; {
		b, err := r.Poll(ctxFor(t, timeout))
		require.NoError(t, err, "after %d of %d records", count, n)
		requireBatch(t, b)
		got[b.Partition] = append(got[b.Partition], b.Records...)
		count += len(b.Records)
	}
	return got
}

// requireBatch checks what is true of every batch.
func requireBatch(t *testing.T, b eventlog.Batch) {
	t.Helper()
	require.NotEmpty(t, b.Records)
	for i, s := range b.Records {
		if i > 0 {
			require.Greater(t, s.Offset, b.Records[i-1].Offset)
		}
	}
	require.Greater(t, b.End, b.Records[len(b.Records)-1].Offset)
}

// fromFirst starts every partition at the oldest record kept.
func fromFirst(t *testing.T, l eventlog.Log, topic string) map[int32]int64 {
	t.Helper()
	bounds, err := l.Bounds(ctxFor(t, timeout), topic)
	require.NoError(t, err)
	start := make(map[int32]int64)
	for p, b := range bounds {
		start[int32(p)] = b.First
	}
	return start
}

func values(records []eventlog.Stored) []string {
	out := make([]string, len(records))
	for i, s := range records {
		out[i] = string(s.Value)
	}
	return out
}

// quiet requires that a poll finds nothing for a short while.
func quiet(t *testing.T, r eventlog.Reader) {
	t.Helper()
	_, err := r.Poll(ctxFor(t, 50*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func closeReader(t *testing.T, r eventlog.Reader) {
	t.Helper()
	require.NoError(t, r.Close())
}
