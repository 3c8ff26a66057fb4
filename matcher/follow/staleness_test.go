package follow

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// A search does not look at every partition: while nothing can have become
// stale, what was found holds.
func TestStalenessIsNotLookedForInEverySearch(t *testing.T) {
	const partitions, startMS = 64, 1_800_000_000_000
	log := memlog.Open(memlog.NewStore(partitions, topics.All(), 0), memlog.Options{})
	defer log.Close()
	const staleAfter = 5 * time.Second
	m, err := New(Config{StaleAfter: staleAfter}, Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	record := func(number int, streamMS int64) {
		m.partitions[number].empty.Store(false)
		m.noteStream(&m.partitions[number], streamMS, streamMS)
	}
	// slow is what a look at every partition finds.
	slow := func(nowMS int64) (out []StalePartition) {
		for i := range m.partitions {
			if s, ok := m.Staleness(int32(i), nowMS); ok {
				out = append(out, s)
			}
		}
		return out
	}
	for i := range partitions {
		record(i, startMS)
	}
	require.Empty(t, m.Stale(startMS))
	looked := m.staleCache.Load()
	for ms := range staleAfter.Milliseconds() {
		require.Empty(t, m.Stale(startMS+ms))
	}
	require.Same(t, looked, m.staleCache.Load(), "all partitions were looked at again")

	// Whatever happens to times, the answer is that of a look at everything.
	nowMS := int64(startMS)
	for i := range 20_000 {
		switch i % 7 {
		case 0:
			nowMS += int64(i % 1300)
		case 1:
			nowMS -= int64(i % 900)
		case 2:
			record(i*31%partitions, nowMS+int64(i%13)*1000-6000)
		case 3:
			if i%49 == 3 {
				record(i*17%partitions, nowMS+8*24*time.Hour.Milliseconds())
			}
		default:
			record(i*13%partitions, nowMS-int64(i%10))
		}
		require.Equal(t, slow(nowMS), m.Stale(nowMS), "step %d", i)
	}
}
