package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/retry"
)

func TestSleepEndsWithTimeOrContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		require.NoError(t, retry.Sleep(t.Context(), 3*time.Second))
		require.Equal(t, 3*time.Second, time.Since(begun))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun = time.Now()
		require.ErrorIs(t, retry.Sleep(ctx, time.Hour), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begun))
		require.NoError(t, retry.Sleep(t.Context(), -1), "nothing to wait for")
	})
}

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	const least, most = 50 * time.Millisecond, time.Second
	for failures, full := range []time.Duration{least, least, 2 * least, 4 * least, 8 * least, 16 * least, most, most} {
		shortest, longest := time.Hour, time.Duration(0)
		for range 1000 {
			d := retry.Backoff(least, most, failures)
			shortest, longest = min(shortest, d), max(longest, d)
		}
		require.GreaterOrEqual(t, shortest, full*4/5, "%d failures", failures)
		require.LessOrEqual(t, longest, full*6/5, "%d failures", failures)
		require.Greater(t, longest-shortest, full/5, "%d failures: it is drawn", failures)
	}
	require.LessOrEqual(t, retry.Backoff(least, most, 1_000_000), most*6/5, "no overflow")
}
