package watch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// paced runs a pace that always has something to send, until it has sent so
// many updates, and returns when each was sent. clock is the injected one.
func paced(t *testing.T, interval time.Duration, updates int, clock func() time.Time) (sent []time.Duration) {
	began := time.Now()
	p := pace{
		watcher: &Watcher{now: clock, stopped: make(chan struct{})}, ctx: t.Context(), interval: interval,
		wait: func() bool { return false },
		update: func() (bool, error) {
			if sent = append(sent, time.Since(began)); len(sent) == updates {
				return false, context.Canceled
			}
			return true, nil
		},
	}
	require.ErrorIs(t, p.follow(), context.Canceled)
	return sent
}

func TestPaceIsTheClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := paced(t, 3*time.Second, 4, time.Now)
		require.Equal(t, []time.Duration{3 * time.Second, 6 * time.Second, 9 * time.Second, 12 * time.Second}, sent)
	})
}

// The interval is measured by the injected clock: where it has passed there,
// nothing is waited for.
func TestPaceGoesByTheInjectedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Unix(1_800_000_000, 0)
		sent := paced(t, time.Minute, 4, func() time.Time { now = now.Add(time.Minute); return now })
		require.Equal(t, make([]time.Duration, 4), sent)
	})
}

// A clock that is set back by an hour holds nothing up for longer than the
// interval.
func TestAClockThatIsSetBackHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Duration(0)
		sent := paced(t, time.Second, 3, func() time.Time { back -= time.Hour; return time.Now().Add(back) })
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, sent)
	})
}
