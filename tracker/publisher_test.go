package tracker

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/wire"
)

// heldLog takes records and completes them when the test lets it.
type heldLog struct {
	mu     sync.Mutex
	values [][]byte
	done   []eventlog.Completion
}

func (l *heldLog) Append(_ context.Context, _ string, _ int32, rec eventlog.Record, done eventlog.Completion) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = append(l.values, rec.Value)
	l.done = append(l.done, done)
	return nil
}

// complete completes the next n records.
func (l *heldLog) complete(n int, err error) {
	l.mu.Lock()
	completed := l.done[:n:n]
	l.done = l.done[n:]
	l.mu.Unlock()
	for _, d := range completed {
		d.Done(0, err)
	}
}

// numbered is a track of about 10 kB that carries its number.
func numbered(n int) *wire.Track {
	return &wire.Track{SourceOffset: int64(n), Points: make([]wire.TrackPoint, 700)}
}

func TestPublishingIsBoundedAndKeepsWhatTheLogHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &heldLog{}
		const maxBytes = 100_000
		p := newPublisher(log, 0, maxBytes)
		published := make(chan int, 100)
		go func() {
			for i := range 100 {
				if err := p.publish(t.Context(), nil, numbered(i)); err != nil {
					t.Error(err)
				}
				published <- i
			}
			close(published)
		}()
		for taken := 0; taken < 100; {
			synctest.Wait()
			onTheWay := len(log.done)
			require.Positive(t, onTheWay)
			size := 0
			for i, value := range log.values[taken:] {
				require.Equal(t, numbered(taken+i).Append(nil), value, "record %d was overwritten while the log held it", taken+i)
				size += len(value)
			}
			require.LessOrEqual(t, size, maxBytes+len(log.values[0]))
			n := max(1, onTheWay/2)
			log.complete(n, nil)
			taken += n
		}
		synctest.Wait()
		require.Len(t, published, 100)
		p.retire()
		require.Zero(t, p.pendingBytes)
		require.Empty(t, p.chunks)
	})
}

func TestNothingIsAppendedAfterAFailure(t *testing.T) {
	log := &heldLog{}
	p := newPublisher(log, 0, 1<<20)
	for i := range 3 {
		require.NoError(t, p.publish(t.Context(), nil, numbered(i)))
	}
	log.complete(1, nil)
	onFire := errors.New("the disk is on fire")
	log.complete(1, onFire)
	err := p.publish(t.Context(), nil, numbered(3))
	require.ErrorIs(t, err, onFire)
	require.True(t, retryable(err))
	require.Len(t, log.values, 3)
	log.complete(1, nil)
	require.False(t, p.reached(3), "what comes after a failure does not count")
	require.ErrorIs(t, p.wait(t.Context(), 3), onFire)
	require.True(t, bytes.Equal(numbered(1).Append(nil), log.values[1]))
}
