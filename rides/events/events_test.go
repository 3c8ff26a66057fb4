package events_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/redisconn"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/rides/events/eventstest"
)

const patience = 20 * time.Second

func TestMemory(t *testing.T) {
	eventstest.Run(t, func(_ *testing.T, bounds events.Bounds) (events.Store, events.Store) {
		m := events.NewMemory(bounds, nil)
		return m, m
	})
}

// connect opens what the settings name, as a process does.
func connect(t *testing.T, set func(*redisconn.Config)) redis.UniversalClient {
	t.Helper()
	cfg := redisconn.DefaultConfig()
	set(&cfg)
	require.NoError(t, cfg.Validate())
	c, err := redisconn.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func client(t *testing.T, server *redistest.Server) redis.UniversalClient {
	t.Helper()
	return connect(t, func(c *redisconn.Config) { c.Addrs = []string{server.Addr()} })
}

// conforms runs the conformance suite on stores of two clients.
func conforms(t *testing.T, open func(*testing.T) redis.UniversalClient) {
	var n atomic.Int64
	// In a group, so that the servers outlive the parallel tests.
	t.Run("conformance", func(t *testing.T) {
		eventstest.Run(t, func(t *testing.T, bounds events.Bounds) (events.Store, events.Store) {
			prefix := fmt.Sprintf("test%d:", n.Add(1))
			return events.NewRedis(open(t), prefix, 7, bounds), events.NewRedis(open(t), prefix, 7, bounds)
		})
	})
}

func TestRedis(t *testing.T) {
	server := redistest.Start(t)
	conforms(t, func(t *testing.T) redis.UniversalClient { return client(t, server) })
	t.Run("epochs are apart", func(t *testing.T) {
		c := client(t, server)
		require.NoError(t, events.NewRedis(c, "e:", 1, events.DefaultBounds()).Publish(t.Context(), eventstest.Messages("a", 1, 2)))
		got, err := events.NewRedis(c, "e:", 2, events.DefaultBounds()).Since(t.Context(), "a", 0)
		require.NoError(t, err)
		require.Empty(t, got)
	})
	t.Run("what is none of ours is dropped", func(t *testing.T) {
		c := client(t, server)
		s := events.NewRedis(c, "x:", 1, events.DefaultBounds())
		f := eventstest.Follow(t, s)
		f.Subscribe(t, s, "a")
		for _, payload := range []string{"", "1", "x y", "-3 value", "0 value"} {
			require.NoError(t, c.Publish(t.Context(), "x:1:events:a", payload).Err())
		}
		require.NoError(t, c.XAdd(t.Context(), &redis.XAddArgs{Stream: "x:1:ride:a", ID: "1-0", Values: []any{"other", "field"}}).Err())
		require.NoError(t, s.Publish(t.Context(), eventstest.Messages("a", 2, 2)))
		require.Eventually(t, func() bool { return len(f.Got("a")) == 1 }, patience, time.Millisecond)
		got, err := s.Since(t.Context(), "a", 0)
		require.NoError(t, err)
		require.Equal(t, eventstest.Messages("a", 2, 2), got)
	})
}

// A Redis that is flushed has lost what was stored, and nothing shows it; one that
// is killed fails in bounded time, and when it is back subscribers are asked to
// compare and served again.
func TestRedisIsFlushedAndKilled(t *testing.T) {
	server := redistest.Start(t)
	publisher, follower := events.NewRedis(client(t, server), "p:", 1, events.DefaultBounds()), events.NewRedis(client(t, server), "p:", 1, events.DefaultBounds())
	f := eventstest.Follow(t, follower)
	f.Subscribe(t, follower, "a")
	require.NoError(t, publisher.Publish(t.Context(), eventstest.Messages("a", 1, 3)))
	require.NoError(t, client(t, server).FlushAll(t.Context()).Err())
	require.NoError(t, publisher.Publish(t.Context(), eventstest.Messages("a", 4, 5)))
	got, err := follower.Since(t.Context(), "a", 0)
	require.NoError(t, err)
	require.Equal(t, eventstest.Messages("a", 4, 5), got, "with a gap that the caller sees")
	require.Eventually(t, func() bool { return len(f.Got("a")) == 5 }, patience, time.Millisecond)

	server.Kill()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.Error(t, publisher.Publish(ctx, eventstest.Messages("a", 6, 6)))
	require.Less(t, time.Since(begun), patience)
	require.Eventually(t, func() bool { return !follower.Healthy() }, patience, time.Millisecond)
	_, err = follower.Since(ctx, "a", 0)
	require.Error(t, err)
	_ = follower.Subscribe(ctx, "b") // it holds once Redis is back

	compares := f.Compares("a")
	server.Restart()
	require.Eventually(t, func() bool { return f.Compares("a") > compares && f.Compares("b") > 0 && follower.Healthy() }, patience, time.Millisecond)
	require.NoError(t, publisher.Publish(t.Context(), append(eventstest.Messages("a", 7, 7), eventstest.Messages("b", 1, 1)...)))
	require.Eventually(t, func() bool { return len(f.Got("a")) == 6 && len(f.Got("b")) == 1 }, patience, time.Millisecond)
}

func TestARideThatGoesOnOverflowsNothing(t *testing.T) {
	m := events.NewMemory(events.DefaultBounds(), nil)
	require.NoError(t, m.Subscribe(t.Context(), "a"))
	for n := int64(1); n <= 20_000; n += 1000 {
		require.NoError(t, m.Publish(t.Context(), eventstest.Messages("a", n, n+999)))
	}
	f := eventstest.Follow(t, m)
	require.Eventually(t, func() bool { return f.Compares("a") == 2 }, patience, time.Millisecond, "the subscription, and that messages were dropped")
	require.Less(t, len(f.Got("a")), 20_000)
}

func TestRedisBehindSentinels(t *testing.T) {
	servers := redistest.StartSentinels(t)
	open := func(t *testing.T) redis.UniversalClient {
		return connect(t, func(c *redisconn.Config) { c.Addrs, c.MasterName = servers.Addrs(), redistest.Master })
	}
	conforms(t, open)
	t.Run("failover", func(t *testing.T) { failsOver(t, open, servers.KillPrimary, servers.Promoted) })
}

func TestRedisCluster(t *testing.T) {
	servers := redistest.StartCluster(t)
	open := func(t *testing.T) redis.UniversalClient {
		return connect(t, func(c *redisconn.Config) { c.Addrs, c.Cluster = servers.Addrs(), true })
	}
	conforms(t, open)
	t.Run("failover", func(t *testing.T) {
		i := servers.Of("f:1:ride:a")
		failsOver(t, open, func() { servers.KillPrimary(i) }, func() { servers.Promoted(i) })
	})
}

// failsOver kills the primary while events are published, each again until it is
// taken. What the replica had not heard of yet is gone, and only its followers'
// owners can tell; whatever is taken once the replica leads is there and is pushed,
// in order, and before that followers are asked to compare.
func failsOver(t *testing.T, open func(*testing.T) redis.UniversalClient, kill, promoted func()) {
	publisher, follower := events.NewRedis(open(t), "f:", 1, events.DefaultBounds()), events.NewRedis(open(t), "f:", 1, events.DefaultBounds())
	f := eventstest.Follow(t, follower)
	f.Subscribe(t, follower, "a")
	publish := func(from, to int64) {
		for _, m := range eventstest.Messages("a", from, to) {
			require.Eventually(t, func() bool { return publisher.Publish(t.Context(), []events.Message{m}) == nil }, 3*patience, time.Millisecond, "event %d", m.Sequence)
		}
	}
	publish(1, 20)
	require.Eventually(t, func() bool { return len(f.Got("a")) == 20 }, patience, time.Millisecond)
	compares := f.Compares("a")
	kill()
	publish(21, 40)
	promoted()
	publish(41, 60)
	since, err := follower.Since(t.Context(), "a", 20)
	require.NoError(t, err)
	require.Equal(t, eventstest.Messages("a", 21, 60), since)
	// The follower's connection may have been to another node.
	heard := func() map[int64]bool {
		all := make(map[int64]bool)
		for _, m := range f.Got("a") {
			all[m.Sequence] = true
		}
		return all
	}
	require.Eventually(t, func() bool { return follower.Healthy() && (f.Compares("a") > compares || len(heard()) == 60) }, 3*patience, time.Millisecond)
	publish(61, 80)
	require.Eventually(t, func() bool { return heard()[80] }, patience, time.Millisecond)
	before := int64(0)
	for _, m := range f.Got("a") { // one may come twice that was published twice
		require.GreaterOrEqual(t, m.Sequence, before, "in order")
		require.Equal(t, eventstest.Messages("a", m.Sequence, m.Sequence)[0], m)
		before = m.Sequence
	}
	for n := int64(61); n <= 80; n++ {
		require.True(t, heard()[n], "what is published when all is well again comes: %d", n)
	}
}
