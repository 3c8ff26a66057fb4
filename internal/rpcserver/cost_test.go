package rpcserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCosts(t *testing.T) {
	now := time.Unix(1000, 0)
	c := DefaultConfig()
	c.CallCPUs, c.PrincipalShare = 2, 0.25
	k := newCosts(&c, func() time.Time { return now })
	spend := func(name string) (spent time.Duration) {
		for {
			if _, ok := k.take(name, 100*time.Millisecond); !ok {
				return spent
			}
			spent += 100 * time.Millisecond
		}
	}
	// A principal's burst is four seconds of its share, and everybody's of all.
	require.InDelta(t, 2, spend("a").Seconds(), 0.11)
	require.InDelta(t, 2, spend("b").Seconds(), 0.11)
	wait, ok := k.take("a", time.Millisecond)
	require.False(t, ok)
	now = now.Add(wait + time.Millisecond)
	_, ok = k.take("a", 100*time.Millisecond)
	require.True(t, ok, "after the wait that was named")
	// Others use up what is left of all: then nobody gets any.
	for _, name := range []string{"c", "d", "e", "f"} {
		spend(name)
	}
	_, ok = k.take("fresh", time.Millisecond)
	require.False(t, ok, "the whole server's budget is used up")
	// In a second, twice as much may be used by all, and half a second's by each.
	now = now.Add(time.Second)
	require.InDelta(t, 0.5, spend("a").Seconds(), 0.11)

	// What a call has cost beyond its estimate is charged afterwards.
	now = now.Add(time.Minute)
	_, ok = k.take("z", time.Millisecond)
	require.True(t, ok)
	k.settle("z", 3*time.Second)
	wait, ok = k.take("z", time.Millisecond)
	require.False(t, ok)
	require.InDelta(t, 2, wait.Seconds(), 0.1, "a second of debt at half a second a second")
}

// Whoever calls under ever new addresses does not make the server remember more
// than so many.
func TestPrincipalsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := DefaultConfig()
	c.CallCPUs = 1e6
	k := newCosts(&c, func() time.Time { return now })
	for i := range maxPrincipals + 500 {
		_, ok := k.take(fmt.Sprint(i), time.Millisecond)
		require.True(t, ok)
	}
	require.Len(t, k.byName, maxPrincipals)
	require.Equal(t, maxPrincipals, k.recent.Len())
	require.NotContains(t, k.byName, "0")
	require.Contains(t, k.byName, fmt.Sprint(maxPrincipals+499))
}
