package modeltest

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	trackerstep "github.com/starling-fleet/starling/tracker/step"
)

// recorded is a partition of `locations` that came to be in a run, what the
// roles were set to, and what one undisturbed partition makes of it.
type recorded struct {
	cfg     config
	records []eventlog.Stored
	tracks  []string
}

func record(t *testing.T, seed uint64, actions int) recorded {
	var r recorded
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		w.run(actions)
		w.judge()
		w.close()
		require.Empty(t, w.failed(), "seed %d", seed)
		r.cfg, r.records = w.cfg, w.store.Records(topics.Locations, 0)
	})
	p, err := trackerstep.NewPartition(r.cfg.tracker.StepSettings(partitions), 0)
	require.NoError(t, err)
	for _, rec := range r.records {
		result, err := p.Step(trackerstep.Record(rec))
		require.NoError(t, err)
		r.tracks = append(r.tracks, string(result.Track.Append(nil)))
	}
	return r
}

// replay lets one tracker step the log up to an offset and stop, and another
// the rest, with batches of other sizes. It returns what was published.
func (r recorded) replay(t *testing.T, rng *rand.Rand, cut int) (tracks []string) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, rng, r.cfg)
		defer w.close()
		var stampMS int64
		writer := memlog.Open(w.store, memlog.Options{Now: func() time.Time { return time.UnixMilli(stampMS) }, MayStepBack: true})
		defer func() { require.NoError(t, writer.Close()) }()
		for _, part := range [][]eventlog.Stored{r.records[:cut], r.records[cut:]} {
			for _, rec := range part {
				stampMS = rec.AppendTimeMS
				require.NoError(t, writer.Append(t.Context(), topics.Locations, 0, eventlog.Record{Key: rec.Key, Value: rec.Value}, ignore{}))
				synctest.Wait()
			}
			n := w.start(roles{tracker: true}, 0)
			synctest.Wait()
			n.stop()
		}
		for _, rec := range w.store.Records(topics.Tracks, 0) {
			tracks = append(tracks, string(rec.Value))
		}
	})
	return tracks
}

// The same log gives the same bytes, however it is cut into batches and at
// whichever offset a tracker goes on from another's checkpoint.
func TestAnyBatchesAndAnyCheckpoint(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for seed := uint64(1); seed <= 6; seed++ {
		r := record(t, seed, actionsPerSeed)
		for cut := range len(r.records) + 1 {
			require.Equal(t, r.tracks, r.replay(t, rng, cut), "seed %d, cut at offset %d", seed, cut)
		}
	}
	long := record(t, 1, 1000)
	require.Greater(t, len(long.records), 150)
	for range 10 {
		cut := rng.IntN(len(long.records) + 1)
		require.Equal(t, long.tracks, long.replay(t, rng, cut), "cut at offset %d", cut)
	}
}
