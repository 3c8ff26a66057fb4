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
		require.Equal(t, int64(9*99), suppressed, "those behind the last that passed are still to be said")
	})
}
