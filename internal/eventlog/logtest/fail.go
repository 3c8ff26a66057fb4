package logtest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

var failCases = []testCase{
	{"failure/there is none", nil, noFailure},
	{"failure/ends every call", []string{"Fail"}, failureEnds},
}

func noFailure(t *testing.T, h *Harness) {
	appendN(t, h.Log, topics.Locations, 0, "x", 3)
	select {
	case <-h.Log.Failed():
		require.FailNow(t, "the log says that it has failed", "%v", h.Log.Err())
	default:
	}
	require.NoError(t, h.Log.Err())
	require.NoError(t, h.Log.Close())
	require.NoError(t, h.Log.Err(), "closing is no failure")
}

// failureEnds has a reader that waits, owners at work and appends under way, and
// lets the log fail.
func failureEnds(t *testing.T, h *Harness) {
	appendN(t, h.Log, topics.Locations, 0, "x", 3)
	start := make(map[int32]int64)
	bounds, err := h.Log.Bounds(ctxFor(t, timeout), topics.Tracks)
	require.NoError(t, err)
	for p, b := range bounds {
		start[int32(p)] = b.End
	}
	r, err := h.Log.NewReader(ctxFor(t, timeout), topics.Tracks, start)
	require.NoError(t, err)
	polled := make(chan error, 1)
	go func() { _, err := r.Poll(ctxFor(t, timeout)); polled <- err }()
	loaded := make(chan eventlog.Claim, Partitions)
	o := startOwn(h.Log, func(ctx context.Context, c eventlog.Claim) error {
		load(ctx, t, c)
		loaded <- c
		<-ctx.Done()
		return ctx.Err()
	})
	var claim eventlog.Claim
	for range Partitions {
		claim = receive(t, h, loaded, "a claim")
	}

	h.Fail(t)
	// The failure may need a write to be noticed; its outcome is an error then.
	f := newOutcomes()
	queued := 0
	if h.Log.Append(ctxFor(t, timeout), topics.Locations, 1, rec("k", "v"), f.one(0)) == nil {
		queued++
	}
	receive(t, h, h.Log.Failed(), "the failure")
	failure := h.Log.Err()
	require.Error(t, failure)
	require.NotErrorIs(t, failure, eventlog.ErrClosed)
	for _, got := range f.wait(t, queued) {
		require.ErrorIs(t, got.err, failure)
		require.NotErrorIs(t, got.err, eventlog.ErrFull, "the outcome is open")
	}
	require.ErrorIs(t, h.Log.Append(ctxFor(t, timeout), topics.Locations, 1, rec("k", "v"), f.one(1)), failure)
	require.ErrorIs(t, receive(t, h, polled, "the end of the reader's wait"), failure)
	_, err = r.Poll(ctxFor(t, timeout))
	require.ErrorIs(t, err, failure)
	require.ErrorIs(t, claim.Checkpoint(ctxFor(t, timeout), []eventlog.Record{rec("k", "v")}, 1), failure)
	_, err = claim.Load(ctxFor(t, timeout), func(_, _ []byte) error { return nil })
	require.ErrorIs(t, err, failure)
	require.Error(t, o.wait(t, h))
	_, err = h.Log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.ErrorIs(t, err, failure)
	_, err = h.Log.NewReader(ctxFor(t, timeout), topics.Locations, start)
	require.ErrorIs(t, err, failure)
	require.ErrorIs(t, h.Log.Own(ctxFor(t, timeout), spec, func(context.Context, eventlog.Claim) error { return errors.New("served") }), failure)
	closed := make(chan error, 1)
	go func() { closed <- h.Log.Close() }()
	require.ErrorIs(t, receive(t, h, closed, "the log to close"), failure)
}
