package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog/memlog"
)

var errDisk = errors.New("the disk is gone")

// A log that fails ends what serves on it, in good order when that is possible.
func TestFailedLogEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memlog.New(1, memlog.Options{})
		stopped := false
		time.AfterFunc(time.Minute, func() { log.Fail(errDisk) })
		began := time.Now()
		err := runOnLog(t.Context(), log, 10*time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = true
			return nil
		})
		require.ErrorIs(t, err, errDisk)
		require.True(t, stopped)
		require.Equal(t, time.Minute, time.Since(began))
	})
}

// A part that never stops holds the process up no longer than the drain timeout,
// also when the failure comes while the process stops.
func TestFailedLogDoesNotWaitForEver(t *testing.T) {
	for _, alreadyStopping := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := memlog.New(1, memlog.Options{})
			stuck := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if alreadyStopping {
				cancel()
			}
			time.AfterFunc(time.Minute, func() { log.Fail(errDisk) })
			began := time.Now()
			err := runOnLog(ctx, log, 10*time.Second, func(context.Context) error { <-stuck; return nil })
			require.ErrorIs(t, err, errDisk)
			require.ErrorContains(t, err, "has not stopped within 10s")
			require.Equal(t, 70*time.Second, time.Since(began))
			close(stuck)
		})
	}
}

func TestStopWithoutFailure(t *testing.T) {
	log := memlog.New(1, memlog.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, runOnLog(ctx, log, time.Second, func(ctx context.Context) error { <-ctx.Done(); return nil }))
}
