package kafkalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

// holding is a claim that is driven from outside of its serve function.
type holding struct {
	claim eventlog.Claim
	ctx   context.Context
	let   chan error // what serve returns
}

// own holds the partitions of a log until the test ends. It returns the
// claims as they come.
func own(t *testing.T, log eventlog.Log) (claims <-chan *holding, ended <-chan error) {
	t.Helper()
	given, result := make(chan *holding, 64), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		result <- log.Own(ctx, ownSpec, func(ctx context.Context, c eventlog.Claim) error {
			h := &holding{claim: c, ctx: ctx, let: make(chan error, 1)}
			given <- h
			select {
			case <-c.Revoked():
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case err := <-h.let:
				return err
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return given, result
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "missing: "+what)
		panic("unreachable")
	}
}

// claimOf returns the claim of one partition, loaded.
func claimOf(t *testing.T, claims <-chan *holding, p int32) *holding {
	t.Helper()
	for {
		h := receive(t, claims, fmt.Sprintf("a claim of partition %d", p))
		if h.claim.Partition() == p {
			mustLoad(t, h)
			return h
		}
	}
}

func mustLoad(t *testing.T, h *holding) (map[string]string, int64) {
	t.Helper()
	state := make(map[string]string)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resume, err := h.claim.Load(ctx, func(k, v []byte) error { state[string(k)] = string(v); return nil })
	require.NoError(t, err)
	return state, resume
}

func checkpoint(h *holding, value string, resume int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.claim.Checkpoint(ctx, []eventlog.Record{{Key: []byte("k"), Value: []byte(value)}}, resume)
}

// TestACheckpointSurvives has coordinators and leaders fail at each step.
func TestACheckpointSurvives(t *testing.T) {
	cut := func(key kmsg.Key) func(*kfake.Cluster) {
		return func(c *kfake.Cluster) {
			c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, errors.New("cut"), true })
		}
	}
	fault := func(f kfake.Fault) func(*kfake.Cluster) { return func(c *kfake.Cluster) { c.Fault(f) } }
	for name, inject := range map[string]func(*kfake.Cluster){
		"a moved leader":                     fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 2}),
		"a batch stored but not answered":    fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 1}),
		"a moved transaction coordinator":    fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.NotCoordinator, Count: 2}),
		"a moved group coordinator":          fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.NotCoordinator, Count: 2}),
		"a loading group coordinator":        fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.CoordinatorLoadInProgress, Count: 3}),
		"a generation that has just changed": fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration, Count: 1}),
		"a concurrent transaction":           fault(kfake.Fault{Keys: []kmsg.Key{kmsg.AddOffsetsToTxn}, TopLevel: true, Err: kerr.ConcurrentTransactions, Count: 3}),
		"an unknown error of the commit":     fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true, Err: kerr.UnknownServerError}),
		"a connection lost in the commit":    cut(kmsg.EndTxn),
		"a connection lost while writing":    cut(kmsg.Produce),
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t)
			log := openLog(t, testConfig(c.ListenAddrs()))
			claims, ended := own(t, log)
			h := claimOf(t, claims, 1)
			require.NoError(t, checkpoint(h, "before", 1))
			inject(c)
			require.NoError(t, checkpoint(h, "after", 2))
			require.NoError(t, checkpoint(h, "last", 3))
			state, resume := mustLoad(t, h)
			require.Equal(t, map[string]string{"k": "last"}, state)
			require.Equal(t, int64(3), resume)
			require.NoError(t, h.ctx.Err(), "the claim lasts")
			require.Empty(t, ended)
		})
	}
}

// TestACheckpointIsCommitted counts what ends transactions. The client may take
// a transaction that was written to for an empty one, and then aborts it and says
// that all went well; transactor.awaitPartition states when.
func TestACheckpointIsCommitted(t *testing.T) {
	c := newFake(t)
	var commits, aborts atomic.Int64
	c.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if req.(*kmsg.EndTxnRequest).Commit {
			commits.Add(1)
		} else {
			aborts.Add(1)
		}
		return nil, nil, false
	})
	cfg := testConfig(c.ListenAddrs())
	cfg.Partitions = 2
	log := openLog(t, cfg)
	const rounds = 100
	var checkpoints atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	busy.Add(cfg.Partitions)
	ended := make(chan error, 1)
	go func() {
		ended <- log.Own(ctx, ownSpec, func(ctx context.Context, c eventlog.Claim) error {
			for n := range int64(rounds) { // each time with a client that knows nothing yet
				if _, err := c.Load(ctx, func(_, _ []byte) error { return nil }); err != nil {
					return err
				}
				if err := c.Checkpoint(ctx, []eventlog.Record{{Key: []byte("k"), Value: []byte("v")}}, n); err != nil {
					return err
				}
				checkpoints.Add(1)
			}
			busy.Done()
			<-c.Revoked()
			return nil
		})
	}()
	busy.Wait()
	cancel()
	require.NoError(t, receive(t, ended, "the end of Own"))
	require.Zero(t, aborts.Load())
	require.Equal(t, checkpoints.Load(), commits.Load())
}

// TestAnExpelledMemberIsFenced: the group refuses the commit before the member
// has noticed, and later gives the partition to it again.
func TestAnExpelledMemberIsFenced(t *testing.T) {
	c := newFake(t)
	cfg := testConfig(c.ListenAddrs())
	log := openLog(t, cfg)
	claims, ended := own(t, log)
	h := claimOf(t, claims, 1)
	require.NoError(t, checkpoint(h, "before", 1))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	depose(t, cl, cfg.TopicPrefix+ownSpec.Group, cfg.ClientID)
	require.ErrorIs(t, checkpoint(h, "refused", 2), eventlog.ErrFenced)
	receive(t, h.ctx.Done(), "the end of the claim's context")
	again := claimOf(t, claims, 1)
	state, resume := mustLoad(t, again)
	require.Equal(t, map[string]string{"k": "before"}, state)
	require.Equal(t, int64(1), resume)
	require.NoError(t, checkpoint(again, "again", 2))
	require.Empty(t, ended, "Own goes on")
}

// TestAGroupThatRefusesForEverEndsOwn: the group counts the member in but
// takes none of its commits.
func TestAGroupThatRefusesForEverEndsOwn(t *testing.T) {
	c := newFake(t)
	cfg := testConfig(c.ListenAddrs())
	cfg.SessionTimeout = time.Second
	log := openLog(t, cfg)
	claims, ended := own(t, log)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownMemberID, Count: -1})
	late := time.After(patience)
	for {
		select {
		case h := <-claims: // more than once, if this machine is too slow for the session
			if h.claim.Partition() != 1 {
				continue
			}
			if _, _, err := loaded(h.ctx, h.claim); err == nil {
				require.ErrorIs(t, checkpoint(h, "refused", 2), eventlog.ErrFenced)
			}
		case err := <-ended:
			require.ErrorIs(t, err, kerr.UnknownMemberID)
			return
		case <-late:
			require.FailNow(t, "Own goes on")
		}
	}
}

func TestACheckpointThatIsRefusedSaysWhy(t *testing.T) {
	c := newFake(t)
	log := openLog(t, testConfig(c.ListenAddrs()))
	claims, _ := own(t, log)
	h := claimOf(t, claims, 1)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed})
	err := checkpoint(h, "refused", 2)
	require.ErrorIs(t, err, kerr.TopicAuthorizationFailed)
	require.NotErrorIs(t, err, eventlog.ErrFenced)
	require.ErrorContains(t, checkpoint(h, "x", 2), "has not been loaded", "a claim must be loaded again after a failure")
	mustLoad(t, h)
	require.NoError(t, checkpoint(h, "x", 2))
}

func TestACheckpointChecksItsArguments(t *testing.T) {
	c := newFake(t)
	log := openLog(t, testConfig(c.ListenAddrs()))
	claims, _ := own(t, log)
	h := receive(t, claims, "a claim")
	require.ErrorContains(t, checkpoint(h, "x", 1), "has not been loaded")
	mustLoad(t, h)
	require.ErrorContains(t, checkpoint(h, "x", -1), "must not be negative")
	reserved := []eventlog.Record{{Key: []byte("\x00resume\x00g"), Value: []byte("x")}}
	require.ErrorContains(t, h.claim.Checkpoint(context.Background(), reserved, 1), "is reserved")
}

// TestServeThatReturnsEarlyEndsOwn: a partition without a holder would rest.
func TestServeThatReturnsEarlyEndsOwn(t *testing.T) {
	c := newFake(t)
	log := openLog(t, testConfig(c.ListenAddrs()))
	claims, ended := own(t, log)
	receive(t, claims, "a claim").let <- nil
	require.ErrorContains(t, receive(t, ended, "the end of Own"), "before its claim was revoked")
}

// onBoth runs a test on franz-go's imitation and on Apache Kafka.
func onBoth(t *testing.T, test func(t *testing.T, brokers []string)) {
	t.Run("kfake", func(t *testing.T) { test(t, newFake(t).ListenAddrs()) })
	t.Run("kafka", func(t *testing.T) { test(t, kafkatest.Shared(t).Brokers()) })
}

// TestAZombieThatLoadsLate: an owner that stood still before its Load wakes up
// when the partition is another's, and raises the transactional id's epoch. The
// real owner goes on all the same, and the zombie checkpoints nothing.
func TestAZombieThatLoadsLate(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		cfg := testConfig(brokers)
		log := openLog(t, cfg)
		claims, _ := own(t, log)
		h := claimOf(t, claims, 1)
		require.NoError(t, checkpoint(h, "mine", 1))

		// The zombie's Load, as far as the brokers see it.
		id := fmt.Sprintf("%s%s-%s%s-1", cfg.TopicPrefix, ownSpec.Group, cfg.TopicPrefix, ownSpec.State)
		zombie, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, err)
		defer zombie.Close()
		require.NoError(t, zombie.BeginTransaction())
		ctx := context.Background()
		record := func() *kgo.Record {
			return &kgo.Record{Topic: cfg.TopicPrefix + ownSpec.State, Partition: 1, Key: []byte("k"), Value: []byte("zombie's")}
		}
		require.NoError(t, zombie.ProduceSync(ctx, record()).FirstErr())

		require.NoError(t, checkpoint(h, "still mine", 2))
		require.NoError(t, h.ctx.Err())
		require.Error(t, zombie.EndTransaction(ctx, kgo.TryCommit), "the zombie is fenced in turn")
		state, resume := mustLoad(t, h)
		require.Equal(t, map[string]string{"k": "still mine"}, state)
		require.Equal(t, int64(2), resume)
	})
}

// TestTheGroupsOffsetFollowsTheCheckpoint: the usual tools see the lag.
func TestTheGroupsOffsetFollowsTheCheckpoint(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		cfg := testConfig(brokers)
		log := openLog(t, cfg)
		claims, _ := own(t, log)
		h := claimOf(t, claims, 1)
		require.NoError(t, checkpoint(h, "x", 42))
		cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
		require.NoError(t, err)
		defer cl.Close()
		require.Eventually(t, func() bool { // the marker may still be on its way to the offsets' partition
			offsets, err := kadm.NewClient(cl).FetchOffsets(context.Background(), cfg.TopicPrefix+ownSpec.Group)
			if err != nil {
				return false
			}
			o, ok := offsets.Lookup(cfg.TopicPrefix+ownSpec.Source, 1)
			return ok && o.At == 42
		}, patience, 20*time.Millisecond)
	})
}

// TestGroupsKeepApart: two groups own the same partitions with the same state
// topic, each with its own resume offset.
func TestGroupsKeepApart(t *testing.T) {
	c := newFake(t)
	log := openLog(t, testConfig(c.ListenAddrs()))
	for i, group := range []string{"a", "b"} {
		ctx, cancel := context.WithCancel(context.Background())
		err := log.Own(ctx, eventlog.OwnSpec{Group: group, Source: topics.Locations, State: topics.TrackerState}, func(ctx context.Context, c eventlog.Claim) error {
			if c.Partition() == 0 {
				resume, err := c.Load(ctx, func(_, _ []byte) error { return nil })
				if err != nil || resume != -1 {
					return fmt.Errorf("resume %d: %w", resume, err)
				}
				if err := c.Checkpoint(ctx, nil, int64(10+i)); err != nil {
					return err
				}
				cancel()
			}
			<-c.Revoked()
			return nil
		})
		require.NoError(t, err)
	}
}

var _ eventlog.Log = (*kafkalog.Log)(nil)
