// Package eventstest is what every store of rides' events must do.
package eventstest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/rides/events"
)

// Open returns two stores that share what is published: the same one where it is
// within a process, those of two processes elsewhere. Neither runs yet.
type Open func(t *testing.T, bounds events.Bounds) (publisher, follower events.Store)

const patience = 20 * time.Second

// Run checks stores.
func Run(t *testing.T, open Open) {
	for name, check := range map[string]func(*testing.T, Open){
		"pushes reach subscribers in order":        pushes,
		"nothing comes behind an unsubscription":   unsubscribes,
		"what was missed can be had":               since,
		"repetitions change nothing":               repetitions,
		"a ride has no more than its bound":        bounded,
		"what is old goes":                         expires,
		"a subscription announces when it holds":   announces,
		"rides are apart":                          apart,
		"publishing at once from several routines": concurrently,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, open)
		})
	}
}

// Messages makes events of a ride, from a number to another.
func Messages(ride string, from, to int64) []events.Message {
	var all []events.Message
	for n := from; n <= to; n++ {
		all = append(all, events.Message{Ride: ride, Sequence: n, Value: fmt.Appendf(nil, "%s event\x00 %d\r\n", ride, n)})
	}
	return all
}

// Follower runs a store and collects what it delivers.
type Follower struct {
	mu       sync.Mutex
	got      map[string][]events.Message
	compares map[string]int
}

// Follow runs a store until the test ends.
func Follow(t *testing.T, s events.Store) *Follower {
	f := &Follower{got: map[string][]events.Message{}, compares: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, f.deliver) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("Run goes on after its context is done")
		}
	})
	return f
}

func (f *Follower) deliver(m events.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Sequence == 0 {
		f.compares[m.Ride]++
		return
	}
	f.got[m.Ride] = append(f.got[m.Ride], m)
}

// Got returns what has come of a ride.
func (f *Follower) Got(ride string) []events.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]events.Message(nil), f.got[ride]...)
}

// Compares returns how often the store has asked to compare a ride.
func (f *Follower) Compares(ride string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.compares[ride]
}

// Subscribe subscribes and waits until nothing can be missed any more.
func (f *Follower) Subscribe(t *testing.T, s events.Store, ride string) {
	t.Helper()
	before := f.Compares(ride)
	require.NoError(t, s.Subscribe(t.Context(), ride))
	require.Eventually(t, func() bool { return f.Compares(ride) > before }, patience, time.Millisecond)
}

func (f *Follower) await(t *testing.T, ride string, want []events.Message) {
	t.Helper()
	require.Eventually(t, func() bool { return len(f.Got(ride)) >= len(want) }, patience, time.Millisecond)
	require.Equal(t, want, f.Got(ride))
}

func pushes(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	f := Follow(t, follower)
	f.Subscribe(t, follower, "a")
	all := Messages("a", 1, 50)
	for _, m := range all {
		require.NoError(t, publisher.Publish(t.Context(), []events.Message{m, {Ride: "b", Sequence: m.Sequence, Value: m.Value}}))
	}
	f.await(t, "a", all)
	require.Empty(t, f.Got("b"), "nobody has subscribed to it")
	require.Eventually(t, follower.Healthy, patience, time.Millisecond)
}

func unsubscribes(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	f := Follow(t, follower)
	f.Subscribe(t, follower, "a")
	f.Subscribe(t, follower, "b")
	require.NoError(t, follower.Unsubscribe(t.Context(), "a"))
	f.Subscribe(t, follower, "c") // the unsubscription is behind it
	require.NoError(t, publisher.Publish(t.Context(), append(Messages("a", 1, 3), Messages("b", 1, 3)...)))
	f.await(t, "b", Messages("b", 1, 3))
	require.Empty(t, f.Got("a"))
	f.Subscribe(t, follower, "a")
	require.NoError(t, publisher.Publish(t.Context(), Messages("a", 4, 4)))
	f.await(t, "a", Messages("a", 4, 4))
}

func since(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	got, err := follower.Since(t.Context(), "a", 0)
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, publisher.Publish(t.Context(), Messages("a", 1, 9)))
	for _, after := range []int64{0, 1, 8, 9, 100} {
		got, err := follower.Since(t.Context(), "a", after)
		require.NoError(t, err)
		require.Equal(t, len(Messages("a", after+1, 9)), len(got), "after %d", after)
		for i, m := range Messages("a", after+1, 9) {
			require.Equal(t, m, got[i])
		}
	}
}

func repetitions(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	for _, ms := range [][]events.Message{Messages("a", 1, 5), Messages("a", 1, 5), Messages("a", 3, 7), Messages("a", 2, 2)} {
		require.NoError(t, publisher.Publish(t.Context(), ms))
	}
	got, err := follower.Since(t.Context(), "a", 0)
	require.NoError(t, err)
	require.Equal(t, Messages("a", 1, 7), got)
}

func bounded(t *testing.T, open Open) {
	publisher, follower := open(t, events.Bounds{PerRide: 10, Keep: time.Hour})
	require.NoError(t, publisher.Publish(t.Context(), Messages("a", 1, 1200)))
	got, err := follower.Since(t.Context(), "a", 0)
	require.NoError(t, err)
	require.Equal(t, Messages("a", 1191, 1200), got)
}

func expires(t *testing.T, open Open) {
	publisher, follower := open(t, events.Bounds{PerRide: 10, Keep: 50 * time.Millisecond})
	require.NoError(t, publisher.Publish(t.Context(), Messages("a", 1, 3)))
	require.Eventually(t, func() bool {
		got, err := follower.Since(t.Context(), "a", 0)
		return err == nil && len(got) == 0
	}, patience, time.Millisecond)
}

func announces(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	f := Follow(t, follower)
	// Whatever is published after the announcement comes, and what came before it
	// can be had. Between the nodes of a cluster some of that may still be on its way.
	for i := range 20 {
		ride := fmt.Sprint("ride-", i)
		require.NoError(t, publisher.Publish(t.Context(), Messages(ride, 1, 2)))
		f.Subscribe(t, follower, ride)
		require.NoError(t, publisher.Publish(t.Context(), Messages(ride, 3, 4)))
		before, err := follower.Since(t.Context(), ride, 0)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(before), 2)
		require.Eventually(t, func() bool { got := f.Got(ride); return len(got) > 0 && got[len(got)-1].Sequence == 4 }, patience, time.Millisecond)
		got := f.Got(ride)
		require.Equal(t, Messages(ride, 5-int64(len(got)), 4), got)
		require.GreaterOrEqual(t, len(got), 2)
	}
}

func apart(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	f := Follow(t, follower)
	const rides = 100
	var all []events.Message
	for i := range rides {
		f.Subscribe(t, follower, fmt.Sprint("r", i))
	}
	for n := int64(1); n <= 10; n++ {
		for i := range rides {
			all = append(all, Messages(fmt.Sprint("r", i), n, n)...)
		}
	}
	require.NoError(t, publisher.Publish(t.Context(), all))
	for i := range rides {
		ride := fmt.Sprint("r", i)
		f.await(t, ride, Messages(ride, 1, 10))
		got, err := follower.Since(t.Context(), ride, 5)
		require.NoError(t, err)
		require.Equal(t, Messages(ride, 6, 10), got)
	}
}

func concurrently(t *testing.T, open Open) {
	publisher, follower := open(t, events.DefaultBounds())
	f := Follow(t, follower)
	var working sync.WaitGroup
	for i := range 8 {
		ride := fmt.Sprint("r", i)
		f.Subscribe(t, follower, ride)
		working.Go(func() {
			for _, m := range Messages(ride, 1, 30) {
				if err := publisher.Publish(t.Context(), []events.Message{m}); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	working.Wait()
	for i := range 8 {
		ride := fmt.Sprint("r", i)
		f.await(t, ride, Messages(ride, 1, 30))
	}
}
