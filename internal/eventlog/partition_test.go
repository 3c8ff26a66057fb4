package eventlog_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/starling-fleet/starling/internal/eventlog"
)

// The judge is franz-go's own port of Kafka's default partitioner.
func TestPartitionOfAgreesWithKafka(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	judge := kgo.StickyKeyPartitioner(nil).ForTopic("locations")
	for range 10_000 {
		key := make([]byte, 1+rng.IntN(70))
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		n := 1 + rng.IntN(300)
		want := judge.Partition(&kgo.Record{Key: key}, n)
		require.EqualValues(t, want, eventlog.PartitionOf(key, int32(n)), "key %x of %d partitions", key, n)
	}
}
