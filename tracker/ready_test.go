package tracker_test

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

func newTracker(t *testing.T, log tracker.Log) *tracker.Tracker {
	t.Helper()
	tr, err := tracker.New(tracker.DefaultConfig(), tracker.Deps{Log: log, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return tr
}

// A tracker is ready once every partition that fell to it has been loaded, and
// not before it has joined its group.
func TestReadyWhenAllPartitionsAreLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		log := open(t, memlog.NewStore(3, topics.All(), 0), memlog.Options{BeforeLoad: func(_ eventlog.OwnSpec, partition int32) error {
			if partition == 1 {
				<-held
			}
			return nil
		}})
		tr := newTracker(t, log)
		require.False(t, tr.Ready(), "it does not run yet")
		run := runTracker(t, tr)
		synctest.Wait()
		require.False(t, tr.Ready(), "partition 1 is not loaded")
		close(held)
		synctest.Wait()
		require.True(t, tr.Ready())
		run.stop()
		require.False(t, tr.Ready(), "it has stopped")
	})
}

// A tracker to which no partition falls is ready once it has joined, and one that
// is ready stays so while partitions move.
func TestReadyWithoutPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlog.NewStore(1, topics.All(), 0)
		log := open(t, store, memlog.Options{})
		first, spare := newTracker(t, log), newTracker(t, log)
		runFirst := runTracker(t, first)
		synctest.Wait()
		require.True(t, first.Ready())
		runSpare := runTracker(t, spare)
		synctest.Wait()
		require.True(t, spare.Ready(), "nothing falls to it")
		runFirst.stop()
		synctest.Wait()
		require.True(t, spare.Ready(), "it has taken the partition over")
		runSpare.stop()
	})
}
