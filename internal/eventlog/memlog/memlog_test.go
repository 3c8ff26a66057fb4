package memlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/logtest"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

func TestConformance(t *testing.T) { logtest.Run(t, open) }

func open(t *testing.T) logtest.Harness {
	const buffer = 256 << 10
	store := memlog.NewStore(logtest.Partitions, topics.All(), 10*time.Second)
	var gate sync.RWMutex // Hold takes it
	opts := memlog.Options{MaxBatch: 100, BufferBytes: buffer, BeforeAppend: func(string, int32, eventlog.Record) error {
		gate.RLock()
		defer gate.RUnlock()
		return nil
	}}
	newest := memlog.Open(store, opts)
	next := func(t *testing.T) eventlog.Log {
		newest = memlog.Open(store, opts)
		t.Cleanup(func() { newest.Close() })
		return newest
	}
	t.Cleanup(func() { newest.Close() })
	return logtest.Harness{
		Log:         newest,
		Another:     next,
		Reopen:      func(t *testing.T) eventlog.Log { require.NoError(t, newest.Close()); return next(t) },
		Crash:       func(t *testing.T) eventlog.Log { newest.Kill(); return next(t) },
		Truncate:    func(_ *testing.T, topic string, p int32, before int64) { store.Truncate(topic, p, before) },
		Depose:      func(_ *testing.T, spec eventlog.OwnSpec) { store.Depose(spec) },
		Fail:        func(*testing.T) { newest.Fail(errors.New("the memory is gone")) },
		Hold:        func(*testing.T) func() { gate.Lock(); return gate.Unlock },
		BufferBytes: buffer,
	}
}

type outcome struct {
	offset int64
	err    error
}

type outcomes chan outcome

func (e outcomes) Done(offset int64, err error) { e <- outcome{offset, err} }

func TestAppendHooksFailBeforeAndAfterStoring(t *testing.T) {
	boom := errors.New("boom")
	fail := func(word string) func([]byte) error {
		return func(value []byte) error {
			if string(value) == word {
				return boom
			}
			return nil
		}
	}
	before, after := fail("before"), fail("after")
	log := memlog.New(2, memlog.Options{
		BeforeAppend: func(_ string, _ int32, r eventlog.Record) error { return before(r.Value) },
		AfterAppend:  func(_ string, _ int32, s eventlog.Stored) error { return after(s.Value) },
	})
	defer log.Close()
	e := make(outcomes, 8)
	for _, v := range []string{"before", "after", "fine"} {
		require.NoError(t, log.Append(t.Context(), topics.Locations, 1, eventlog.Record{Value: []byte(v)}, e))
	}
	require.Equal(t, outcome{0, boom}, <-e)
	require.Equal(t, outcome{0, boom}, <-e)
	require.Equal(t, outcome{1, nil}, <-e)
	var kept []string
	for _, s := range log.Store().Records(topics.Locations, 1) {
		kept = append(kept, string(s.Value))
	}
	require.Equal(t, []string{"after", "fine"}, kept)
}

func TestCheckpointHooksFailBeforeAndAfterStoring(t *testing.T) {
	boom := errors.New("boom")
	hook := func(at int64) func(eventlog.OwnSpec, int32, []eventlog.Record, int64) error {
		return func(_ eventlog.OwnSpec, _ int32, _ []eventlog.Record, resume int64) error {
			if resume == at {
				return boom
			}
			return nil
		}
	}
	log := memlog.New(1, memlog.Options{BeforeCheckpoint: hook(1), AfterCheckpoint: hook(2)})
	defer log.Close()
	spec := eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}
	err := log.Own(t.Context(), spec, func(ctx context.Context, c eventlog.Claim) error {
		require.Error(t, c.Checkpoint(ctx, nil, 0), "before Load")
		_, err := c.Load(ctx, func(_, _ []byte) error { return nil })
		require.NoError(t, err)
		require.ErrorIs(t, c.Checkpoint(ctx, nil, 1), boom)
		_, resume := log.Store().State(spec, 0)
		require.Equal(t, int64(-1), resume)
		require.ErrorIs(t, c.Checkpoint(ctx, nil, 2), boom)
		_, resume = log.Store().State(spec, 0)
		require.Equal(t, int64(2), resume)
		return boom
	})
	require.ErrorIs(t, err, boom)
}

// The append time follows the hook's clock and never steps back.
func TestAppendTimeDoesNotStepBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Hour
		log := memlog.New(1, memlog.Options{Now: func() time.Time { return time.Now().Add(ahead) }})
		e := make(outcomes, 1)
		for range 3 {
			require.NoError(t, log.Append(t.Context(), topics.Locations, 0, eventlog.Record{}, e))
			<-e
			ahead -= 40 * time.Minute
			time.Sleep(time.Minute)
		}
		records := log.Store().Records(topics.Locations, 0)
		require.Equal(t, records[0].AppendTimeMS, records[1].AppendTimeMS)
		require.Equal(t, records[0].AppendTimeMS, records[2].AppendTimeMS)
		require.NoError(t, log.Close())
	})
}

// A holder that does not hand over in time loses its partition.
func TestHandoverTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(2, topics.All(), 10*time.Second)
		spec := eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}
		a, b := memlog.Open(store, memlog.Options{}), memlog.Open(store, memlog.Options{})
		start := time.Now()
		ctxA, cancelA := context.WithCancel(t.Context())
		lost := make(chan time.Duration, 2)
		ends := make(chan error, 2)
		go func() {
			ends <- a.Own(ctxA, spec, func(ctx context.Context, c eventlog.Claim) error {
				if c.Partition() == 0 {
					<-c.Revoked()
					return nil
				}
				<-ctx.Done() // ignores Revoked
				lost <- time.Since(start)
				return ctx.Err()
			})
		}()
		synctest.Wait()
		ctxB, cancelB := context.WithCancel(t.Context())
		got := make(chan int32, 2)
		go func() {
			ends <- b.Own(ctxB, spec, func(_ context.Context, c eventlog.Claim) error {
				got <- c.Partition()
				<-c.Revoked()
				return nil
			})
		}()
		require.Equal(t, int32(1), <-got)
		require.Equal(t, 10*time.Second, <-lost)
		cancelA()
		require.NoError(t, <-ends)
		require.Equal(t, int32(0), <-got)
		cancelB()
		require.NoError(t, <-ends)
	})
}
