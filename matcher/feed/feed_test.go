package feed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A feed grows while a round of its ring takes less than feedSpan by the clock
// that it was given, whatever the machine's clock shows.
func TestAFeedGrowsByItsOwnClock(t *testing.T) {
	for name, between := range map[string]time.Duration{"often": time.Millisecond, "seldom": time.Second} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_800_000_000, 0)
			f := New[int](func() time.Time { return now })
			const changes = 10 * minFeed
			for i := range changes {
				f.Add(i)
				now = now.Add(between)
			}
			var from uint64
			got, all := f.Since(&from, nil)
			require.Equal(t, uint64(changes), from)
			require.Equal(t, between < time.Second, all, "ten rounds are remembered if they came fast")
			if !all {
				require.Len(t, got, minFeed)
			}
			for i, n := range got {
				require.Equal(t, changes-len(got)+i, n)
			}
		})
	}
}

// Nothing is missed, whenever a reader looks, and a reader that waits is woken
// once.
func TestAWaiterIsWokenOnce(t *testing.T) {
	f := New[string](time.Now)
	w := NewWaiter()
	next := f.Join(&w)
	nothing := func() bool { return f.Changed(next) }
	require.True(t, w.Arm(nothing))
	f.Add("a")
	f.Add("b")
	require.Len(t, w.Wake, 1)
	<-w.Wake
	require.False(t, w.Arm(nothing), "there is something to read")
	got, all := f.Since(&next, nil)
	require.Equal(t, []string{"a", "b"}, got)
	require.True(t, all)

	require.True(t, w.Arm(nothing))
	f.WakeAll()
	<-w.Wake
	require.False(t, w.Arm(nothing), "it shall look although nothing has changed")
	w.Looked()
	require.True(t, w.Arm(nothing))
	require.True(t, f.Leave(&w))
}
