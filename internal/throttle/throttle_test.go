package throttle

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOneInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := Throttle{Interval: 10 * time.Second}
		var passed, suppressed int64
		for range 1000 {
			if n, ok := th.Pass(); ok {
				passed++
				suppressed += n
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, int64(10), passed)
		require.Equal(t, int64(9*99), suppressed, "those behind the last that passed are still to be reported")
	})
}

// By a clock of the caller's, and one that has been set back lets the next event
// through.
func TestByAnotherClock(t *testing.T) {
	th := Throttle{Interval: 10 * time.Second}
	at := time.Unix(1_800_000_000, 0)
	passes := func(now time.Time) bool { _, ok := th.PassAt(now); return ok }
	require.True(t, passes(at))
	require.False(t, passes(at.Add(10*time.Second-1)))
	require.True(t, passes(at.Add(10*time.Second)))
	require.True(t, passes(at.Add(-time.Hour)))
	require.False(t, passes(at.Add(-time.Hour)))
}
