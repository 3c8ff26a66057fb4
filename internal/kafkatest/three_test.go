//go:build slow

package kafkatest_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/kafkatest"
)

func TestThreeNodesSurviveTheLossOfOne(t *testing.T) {
	ctx := context.Background()
	kafkatest.Need(t)
	c, err := kafkatest.Start(ctx, kafkatest.Options{Nodes: 3, HeapMB: 512})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Stop()) })
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...), kgo.DefaultProduceTopic("t"))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	minISR := "2"
	_, err = kadm.NewClient(cl).CreateTopic(ctx, 1, 3, map[string]*string{"min.insync.replicas": &minISR}, "t")
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(ctx, kgo.StringRecord("before")).FirstErr())
	require.NoError(t, c.Kill(0))
	require.NoError(t, cl.ProduceSync(ctx, kgo.StringRecord("without")).FirstErr())
	require.NoError(t, c.Restart(0))
	require.NoError(t, c.WaitReady(ctx))
	require.NoError(t, cl.ProduceSync(ctx, kgo.StringRecord("after")).FirstErr())
}
