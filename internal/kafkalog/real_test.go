package kafkalog_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/logtest"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/kafkatest"
	"github.com/starling-fleet/starling/schemas/topics"
)

func TestMain(m *testing.M) {
	if os.Getenv(childConfig) != "" {
		runChild()
	}
	if os.Getenv(zombieConfig) != "" {
		runZombie()
	}
	kafkatest.Main(m)
}

// TestConformance holds the adapter to the contract on a real Apache Kafka.
func TestConformance(t *testing.T) {
	logtest.Run(t, func(t *testing.T) logtest.Harness {
		return harness(t, kafkatest.Shared(t).Brokers())
	})
}

// names are unique within a run, so that tests share one cluster.
var nameCount atomic.Int64

func testConfig(brokers []string) kafkalog.Config {
	cfg := kafkalog.DefaultConfig()
	cfg.Brokers = brokers
	cfg.Partitions = logtest.Partitions
	cfg.ReplicationFactor = 1
	cfg.MaxBufferedBytes = 16 << 20
	cfg.TopicPrefix = fmt.Sprintf("t%d.", nameCount.Add(1))
	cfg.HeartbeatInterval = 200 * time.Millisecond
	cfg.HandoverTimeout = 5 * time.Second
	return cfg
}

func testLogger() *slog.Logger {
	level := slog.LevelError + 4
	if os.Getenv("KAFKALOG_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func openUntested(cfg kafkalog.Config) (*kafkalog.Log, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return kafkalog.Open(ctx, cfg, topics.All(), prometheus.NewRegistry(), testLogger())
}

func openLog(t testing.TB, cfg kafkalog.Config) *kafkalog.Log {
	t.Helper()
	l, err := openUntested(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func harness(t *testing.T, brokers []string) logtest.Harness {
	cfg := testConfig(brokers)
	opened := 0
	next := func(t *testing.T) eventlog.Log {
		opened++
		cfg.ClientID = fmt.Sprintf("process-%d", opened)
		return openLog(t, cfg)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	newest := next(t)
	return logtest.Harness{
		Log:     newest,
		Without: []string{"Crash", "Fail", "Hold", "BufferBytes"},
		Another: next,
		Reopen: func(t *testing.T) eventlog.Log {
			require.NoError(t, newest.Close())
			newest = next(t)
			return newest
		},
		Truncate: func(t *testing.T, topic string, p int32, before int64) {
			var o kadm.Offsets
			o.AddOffset(cfg.TopicPrefix+topic, p, before, -1)
			resp, err := kadm.NewClient(cl).DeleteRecords(context.Background(), o)
			require.NoError(t, err)
			require.NoError(t, resp.Error())
		},
		Depose:   func(t *testing.T, spec eventlog.OwnSpec) { depose(t, cl, cfg.TopicPrefix+spec.Group, "process-1") },
		Patience: patience,
	}
}

// depose has the coordinator forget a process's members, as if their session
// had timed out.
func depose(t *testing.T, cl *kgo.Client, group, clientID string) {
	t.Helper()
	ctx := context.Background()
	described, err := kadm.NewClient(cl).DescribeGroups(ctx, group)
	require.NoError(t, err)
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range described[group].Members {
		if m.ClientID == clientID {
			rm := kmsg.NewLeaveGroupRequestMember()
			rm.MemberID = m.MemberID
			req.Members = append(req.Members, rm)
		}
	}
	require.NotEmpty(t, req.Members)
	_, err = req.RequestWith(ctx, cl)
	require.NoError(t, err)
}
