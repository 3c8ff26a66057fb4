package tracker

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestTurnsGoToWhoeverHasWaitedLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(turns, 1)
		turn.take()
		var order []int // whoever has the turn appends
		for i := range 3 {
			go func() {
				turn.take()
				order = append(order, i)
				turn.give()
			}()
			synctest.Wait() // it stands in the queue
		}
		require.Empty(t, order)
		turn.pass()
		order = append(order, 3)
		turn.give()
		synctest.Wait()
		require.Equal(t, []int{0, 1, 2, 3}, order)
	})
}
