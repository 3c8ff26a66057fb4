//go:build slow

package kafkalog_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/logtest"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

// gap measures the longest time between two events.
type gap struct {
	last    atomic.Int64
	longest atomic.Int64
}

func (g *gap) event() {
	now := time.Now().UnixNano()
	if before := g.last.Swap(now); before != 0 && now-before > g.longest.Load() {
		g.longest.Store(now - before)
	}
}

func (g *gap) take() time.Duration { return time.Duration(g.longest.Swap(0)) }

// outcome is one append's outcome.
type outcome struct {
	to     *hearing
	id     int
	offset int64
}

type hearing struct {
	all   []*outcome
	gap   gap
	wg    sync.WaitGroup
	fails atomic.Int64
}

func (h *outcome) Done(offset int64, err error) {
	h.offset = offset
	if err != nil {
		h.offset = -1
		h.to.fails.Add(1)
	} else {
		h.to.gap.event()
	}
	h.to.wg.Done()
}

// appendUntil appends a thousand records a second.
func (h *hearing) appendUntil(ctx context.Context, log eventlog.Log) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		r := &outcome{to: h, id: len(h.all)}
		h.wg.Add(1)
		rec := eventlog.Record{Value: strconv.AppendInt(nil, int64(r.id), 10)}
		if err := log.Append(ctx, topics.Locations, int32(r.id%logtest.Partitions), rec, r); err != nil {
			h.wg.Done()
			return
		}
		h.all = append(h.all, r)
	}
}

// checkpointer checkpoints each of its partitions ten times a second.
type checkpointer struct {
	gap    gap
	counts [logtest.Partitions]atomic.Int64
}

func (o *checkpointer) serve(ctx context.Context, c eventlog.Claim) error {
	_, resume, err := loaded(ctx, c)
	if err != nil {
		return err
	}
	for n := resume + 1; ; n++ {
		select {
		case <-c.Revoked():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if err := c.Checkpoint(ctx, []eventlog.Record{{Key: []byte("n"), Value: strconv.AppendInt(nil, n, 10)}}, n); err != nil {
			return err
		}
		o.counts[c.Partition()].Store(n)
		o.gap.event()
	}
}

// TestThreeBrokers appends, reads and checkpoints while one broker is killed
// and comes back, and another is restarted in good order.
func TestThreeBrokers(t *testing.T) {
	kafkatest.Need(t)
	cluster, err := kafkatest.Start(context.Background(), kafkatest.Options{Nodes: 3, HeapMB: 512})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })
	cfg := testConfig(cluster.Brokers())
	cfg.ReplicationFactor, cfg.MinISR = 3, 2
	reg := prometheus.NewRegistry()
	log, err := kafkalog.Open(context.Background(), cfg, topics.All(), reg, testLogger())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	var owner checkpointer
	owned := make(chan error, 1)
	go func() { owned <- log.Own(ctx, ownSpec, owner.serve) }()

	appending, stopAppending := context.WithCancel(ctx)
	var h hearing
	var appender sync.WaitGroup
	appender.Go(func() { h.appendUntil(appending, log) })
	require.Eventually(t, func() bool {
		for p := range owner.counts {
			if owner.counts[p].Load() == 0 {
				return false
			}
		}
		return true
	}, 2*time.Minute, 50*time.Millisecond, "every partition is owned and checkpointed")
	h.gap.take()
	owner.gap.take()
	pause := func(d time.Duration) { time.Sleep(d) } // the disturbance lasts so long; nothing is awaited by it
	pause(3 * time.Second)
	t.Logf("undisturbed: longest time without an acknowledgement %v, without a checkpoint %v", h.gap.take(), owner.gap.take())
	t.Logf("connections, with %d partitions owned: %v", logtest.Partitions, counter(t, reg, "starling_kafkalog_connections", ""))
	require.NoError(t, cluster.Kill(0))
	pause(15 * time.Second)
	t.Logf("a broker killed: %v and %v", h.gap.take(), owner.gap.take())
	require.NoError(t, cluster.Restart(0))
	require.NoError(t, cluster.WaitReady(ctx))
	h.gap.take()
	owner.gap.take()
	require.NoError(t, cluster.Terminate(1))
	pause(10 * time.Second)
	t.Logf("a broker stopped in good order: %v and %v", h.gap.take(), owner.gap.take())
	require.NoError(t, cluster.Restart(1))
	require.NoError(t, cluster.WaitReady(ctx))

	stopAppending()
	appender.Wait()
	h.wg.Wait()
	require.Zero(t, h.fails.Load())
	require.NotEmpty(t, h.all)
	checkAcknowledged(t, log, h.all)
	stop()
	require.NoError(t, <-owned)
	for p := range owner.counts {
		require.Positive(t, owner.counts[p].Load(), "partition %d", p)
	}
}

// checkAcknowledged reads everything: each record is there once, in order, at
// the offset that was returned.
func checkAcknowledged(t *testing.T, log eventlog.Log, all []*outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bounds, err := log.Bounds(ctx, topics.Locations)
	require.NoError(t, err)
	start, left := make(map[int32]int64), 0
	for p, b := range bounds {
		start[int32(p)] = 0
		left += int(b.End)
	}
	require.Equal(t, len(all), left, "nothing is doubled")
	r, err := log.NewReader(ctx, topics.Locations, start)
	require.NoError(t, err)
	defer r.Close()
	for left > 0 {
		b, err := r.Poll(ctx)
		require.NoError(t, err)
		for _, s := range b.Records {
			id, err := strconv.Atoi(string(s.Value))
			require.NoError(t, err)
			require.Equal(t, int(b.Partition)+int(s.Offset)*logtest.Partitions, id, "in order")
			require.Equal(t, s.Offset, all[id].offset)
			left--
		}
	}
}
