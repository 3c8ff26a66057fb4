package kafkalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// patience bounds what a test waits for; only one that fails waits so long.
const patience = 90 * time.Second

var ownSpec = eventlog.OwnSpec{Group: "trackers", Source: topics.Locations, State: topics.TrackerState}

// ledger collects outcomes.
type ledger struct {
	mu      sync.Mutex
	offsets []int64
	errs    []error
	wg      sync.WaitGroup
}

func (l *ledger) Done(offset int64, err error) {
	l.mu.Lock()
	l.offsets, l.errs = append(l.offsets, offset), append(l.errs, err)
	l.mu.Unlock()
	l.wg.Done()
}

func (l *ledger) append(t *testing.T, log eventlog.Log, n int) {
	t.Helper()
	l.wg.Add(n)
	for i := range n {
		rec := eventlog.Record{Key: []byte("k"), Value: fmt.Appendf(nil, "value-%d", i)}
		require.NoError(t, log.Append(context.Background(), topics.Locations, 0, rec, l))
	}
}

func readValues(t *testing.T, log eventlog.Log, p int32, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := log.NewReader(ctx, topics.Locations, map[int32]int64{p: 0})
	require.NoError(t, err)
	defer r.Close()
	var values []string
	for len(values) < n {
		b, err := r.Poll(ctx)
		require.NoError(t, err)
		for _, s := range b.Records {
			values = append(values, string(s.Value))
		}
	}
	return values
}

func wantValues(n int) []string {
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("value-%d", i))
	}
	return want
}

// TestAppendSurvives has brokers fail before and after they stored a batch.
func TestAppendSurvives(t *testing.T) {
	produce := []kmsg.Key{kmsg.Produce}
	for name, fault := range map[string]kfake.Fault{
		"a moved leader":                {Keys: produce, Topic: "x", Err: kerr.NotLeaderForPartition, Count: 3},
		"too few replicas":              {Keys: produce, Topic: "x", Err: kerr.NotEnoughReplicas, Count: 3},
		"too few replicas after append": {Keys: produce, Topic: "x", Err: kerr.NotEnoughReplicasAfterAppend, Count: 3},
		"a timeout after append":        {Keys: produce, Topic: "x", Err: kerr.RequestTimedOut, Count: 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t)
			cfg := testConfig(c.ListenAddrs())
			log := openLog(t, cfg)
			fault.Topic = cfg.TopicPrefix + topics.Locations
			h := c.Fault(fault)
			var l ledger
			l.append(t, log, 500)
			l.wg.Wait()
			require.Equal(t, 3, h.Hits(), "the fault was injected")
			for i := range l.errs {
				require.NoError(t, l.errs[i])
				require.Equal(t, int64(i), l.offsets[i], "nothing is doubled, lost or out of order")
			}
			require.Equal(t, wantValues(500), readValues(t, log, 0, 500))
		})
	}
}

func TestAppendAndReadFollowALeaderThatMoves(t *testing.T) {
	c := newFake(t)
	cfg := testConfig(c.ListenAddrs())
	log := openLog(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := log.NewReader(ctx, topics.Locations, map[int32]int64{0: 0})
	require.NoError(t, err)
	defer r.Close()
	next := int64(0)
	for round := range 6 {
		require.NoError(t, c.MoveTopicPartition(cfg.TopicPrefix+topics.Locations, 0, int32(round%3)))
		var l ledger
		l.append(t, log, 100)
		l.wg.Wait()
		for i, err := range l.errs {
			require.NoError(t, err)
			require.Equal(t, next+int64(i), l.offsets[i])
		}
		for end := next + 100; next < end; {
			b, err := r.Poll(ctx)
			require.NoError(t, err)
			for _, s := range b.Records {
				require.Equal(t, next, s.Offset)
				next++
			}
		}
	}
}

func TestAppendThatABrokerRefusesFails(t *testing.T) {
	for _, c := range []struct {
		refusal *kerr.Error
		is      error
		class   string
	}{{kerr.InvalidRecord, kerr.InvalidRecord, "broker"}, {kerr.MessageTooLarge, eventlog.ErrTooLarge, "too_large"}, {kerr.TopicAuthorizationFailed, kerr.TopicAuthorizationFailed, "broker"}} {
		t.Run(c.refusal.Message, func(t *testing.T) {
			fake := newFake(t)
			cfg := testConfig(fake.ListenAddrs())
			reg := prometheus.NewRegistry()
			log, err := kafkalog.Open(context.Background(), cfg, topics.All(), reg, testLogger())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, log.Close()) })
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.TopicPrefix + topics.Locations, Err: c.refusal})
			var l ledger
			l.append(t, log, 1)
			l.wg.Wait()
			require.ErrorIs(t, l.errs[0], c.is)
			require.Equal(t, 1.0, counter(t, reg, "starling_kafkalog_append_errors_total", c.class))
			alarmtest.Raised(t, reg, "starling_kafkalog_append_errors_total")
			l = ledger{}
			l.append(t, log, 1)
			l.wg.Wait()
			require.NoError(t, l.errs[0], "the log goes on")
			require.Equal(t, 0.0, counter(t, reg, "starling_kafkalog_buffered_bytes", ""))
		})
	}
}

// reentrant is a ledger that appends one more record when it learns of the first
// failure: while the log still has other failures to report.
type reentrant struct {
	ledger
	once sync.Once
	more func()
}

func (r *reentrant) Done(offset int64, err error) {
	if err != nil {
		r.once.Do(r.more)
	}
	r.ledger.Done(offset, err)
}

// TestAFailureTakesAllThatWaitWithIt: no record in the log follows one of the
// same partition that failed, except for those that are appended between the
// client's giving up and the writer's hearing of it. That these are stored is
// why readers of `tracks` must bear a gap until it is filled.
func TestAFailureTakesAllThatWaitWithIt(t *testing.T) {
	fake := newFake(t)
	var held hold
	held.install(fake)
	cfg := testConfig(fake.ListenAddrs())
	log := openLog(t, cfg)
	r := &reentrant{}
	r.more = func() { r.append(t, log, 1) }
	r.append(t, log, 1) // so that the client has the partition's leader
	r.wg.Wait()
	release := held.begin()
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.TopicPrefix + topics.Locations, Err: kerr.InvalidRecord})
	const n = 2000 // several batches, of which at most one is on its way
	r.wg.Add(n)
	for i := range n {
		rec := eventlog.Record{Value: append(fmt.Appendf(nil, "%d", i), make([]byte, 1000)...)}
		require.NoError(t, log.Append(context.Background(), topics.Locations, 0, rec, r))
	}
	release()
	r.wg.Wait()
	require.Len(t, r.errs, n+2)
	failed := 0
	for _, err := range r.errs[1 : n+1] {
		if err != nil {
			require.ErrorIs(t, err, kerr.InvalidRecord)
			failed++
		}
		require.False(t, failed > 0 && err == nil, "a record is stored behind one that failed")
	}
	require.Equal(t, n, failed)
	require.NoError(t, r.errs[n+1], "what was appended before the writer learned of all failures is stored")
	require.Equal(t, int64(1), r.offsets[n+1])
}

// counter returns the value of a metric, of the series with a label's value.
func counter(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	require.FailNow(t, "no such metric", "%s %s", name, label)
	return 0
}

// TestAppendTimesOut: a leader that is away fails what was never sent.
func TestAppendTimesOut(t *testing.T) {
	fake := newFake(t)
	cfg := testConfig(fake.ListenAddrs())
	cfg.AppendTimeout = time.Second
	log := openLog(t, cfg)
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: cfg.TopicPrefix + topics.Locations, Err: kerr.NotLeaderForPartition, Count: -1})
	var l ledger
	l.append(t, log, 10)
	l.wg.Wait()
	for _, err := range l.errs {
		require.ErrorIs(t, err, kgo.ErrRecordTimeout)
	}
}

func TestAReaderBeyondTheEndIsAnError(t *testing.T) {
	fake := newFake(t)
	log := openLog(t, testConfig(fake.ListenAddrs()))
	var l ledger
	l.append(t, log, 10)
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := log.NewReader(ctx, topics.Locations, map[int32]int64{0: 11})
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Poll(ctx)
	require.ErrorContains(t, err, "beyond the end 10")
	var gone *eventlog.TruncatedError
	require.False(t, errors.As(err, &gone))
	_, again := r.Poll(ctx)
	require.Equal(t, err, again, "it stays")
}

// TestASlowReaderIsPaused has one reader stand still while others of the same
// client read on, and then has it read everything.
func TestASlowReaderIsPaused(t *testing.T) {
	fake := newFake(t)
	cfg := testConfig(fake.ListenAddrs())
	cfg.ReaderBufferBytes = 64 << 10
	cfg.FetchMaxPartitionBytes = 64 << 10
	cfg.Compression = "none"
	reg := prometheus.NewRegistry()
	log, err := kafkalog.Open(context.Background(), cfg, topics.All(), reg, testLogger())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	const n = 3000
	var l ledger
	l.wg.Add(2 * n)
	for i := range n {
		for p := range int32(2) {
			value := append(fmt.Appendf(nil, "value-%d", i), make([]byte, 1000)...)
			require.NoError(t, log.Append(context.Background(), topics.Locations, p, eventlog.Record{Value: value}, &l))
		}
	}
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	slow, err := log.NewReader(ctx, topics.Locations, map[int32]int64{0: 0})
	require.NoError(t, err)
	defer slow.Close()
	first, err := slow.Poll(ctx)
	require.NoError(t, err)
	require.Less(t, len(first.Records), n)

	for range 3 { // the others come and go meanwhile
		require.Len(t, readValues(t, log, 1, n), n)
	}
	next := int64(len(first.Records))
	for next < n {
		b, err := slow.Poll(ctx)
		require.NoError(t, err)
		for _, s := range b.Records {
			require.Equal(t, next, s.Offset)
			next++
		}
	}
	// Three clients (producer, requests, one fetcher), each with at most two
	// connections to each of three brokers and one to a seed.
	require.LessOrEqual(t, counter(t, reg, "starling_kafkalog_connections", ""), 3*7.0)
}

// TestManyReadersShareAClient opens a reader for each of 24 partitions.
func TestManyReadersShareAClient(t *testing.T) {
	fake := newFake(t)
	cfg := testConfig(fake.ListenAddrs())
	cfg.Partitions = 24
	reg := prometheus.NewRegistry()
	log, err := kafkalog.Open(context.Background(), cfg, topics.All(), reg, testLogger())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	var l ledger
	l.wg.Add(24)
	for p := range int32(24) {
		require.NoError(t, log.Append(context.Background(), topics.Locations, p, eventlog.Record{Value: fmt.Append(nil, p)}, &l))
	}
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for p := range int32(24) {
		r, err := log.NewReader(ctx, topics.Locations, map[int32]int64{p: 0})
		require.NoError(t, err)
		defer r.Close()
		wg.Go(func() {
			if b, err := r.Poll(ctx); err != nil || string(b.Records[0].Value) != fmt.Sprint(p) {
				t.Errorf("partition %d: %v %v", p, b, err)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, counter(t, reg, "starling_kafkalog_connections", ""), 3*7.0)
}
