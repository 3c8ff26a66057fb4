package reprocess_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/lake"
	"github.com/starling-fleet/starling/history/reprocess"
	"github.com/starling-fleet/starling/history/row"
	"github.com/starling-fleet/starling/history/store"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker/step"
)

// stored waits for appends.
type stored struct{ sync.WaitGroup }

func (s *stored) Done(int64, error) { s.WaitGroup.Done() }

const vehicles, seconds = 3, 200

// fleet fills `locations` and `tracks` of two partitions, as a tracker does, and
// returns the truth of the fixes, by vehicle. The log stamps by the clock of the test's
// bubble, which goes on by a second after each round.
func fleet(t *testing.T, log *memlog.Log, shared *memlog.Store) map[string][]row.Fix {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	want := map[string][]row.Fix{}
	for n := range int32(2) {
		p, err := step.NewPartition(step.DefaultSettings(), log.Epoch())
		require.NoError(t, err)
		var rows []row.Fix
		for s := range int64(seconds) {
			time.Sleep(time.Second)
			for v := range vehicles {
				id := fmt.Sprintf("car-%d-%d", n, v)
				fix := wire.Fix{DeviceTimeMS: time.Now().UnixMilli() - 300, LatDeg: 48 + float64(s)*1e-4 + rng.NormFloat64()*1e-4, LonDeg: 16 + rng.NormFloat64()*1e-4}
				loc := wire.Location{Kind: wire.KindReport, Report: wire.Report{SessionID: 1, Sequence: s + 1, Fixes: []wire.Fix{fix}}}
				append1(t, log, topics.Locations, n, id, loc.Append(nil))
				records := shared.Records(topics.Locations, n)
				r := records[len(records)-1]
				res, err := p.Step(step.Record{Offset: r.Offset, AppendTimeMS: r.AppendTimeMS, Key: r.Key, Value: r.Value})
				require.NoError(t, err)
				rows = row.Append(rows, n, id, res.Track)
				value := res.Track.Append(nil)
				append1(t, log, topics.Tracks, n, id, value)
				if rng.IntN(50) == 0 { // published again
					append1(t, log, topics.Tracks, n, id, value)
				}
			}
		}
		for _, f := range row.Truth(rows) {
			want[f.Vehicle] = append(want[f.Vehicle], f.Bare())
		}
	}
	return want
}

func append1(t *testing.T, log *memlog.Log, topic string, n int32, key string, value []byte) {
	t.Helper()
	var done stored
	done.Add(1)
	require.NoError(t, log.Append(t.Context(), topic, n, eventlog.Record{Key: []byte(key), Value: value}, &done))
	done.Wait()
}

func options(t *testing.T) reprocess.Options {
	return reprocess.Options{
		Version: step.Newest, Settings: step.DefaultSettings(), From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour),
		Out: filepath.Join(t.TempDir(), "lake"), Worst: 5,
	}
}

// By the same settings nothing differs, and the lake has what the live one would have;
// by others the report names what does, the worst first.
func TestReprocess(t *testing.T) { synctest.Test(t, testReprocess) }

func testReprocess(t *testing.T) {
	shared := memlog.NewStore(2, topics.All(), time.Minute)
	log := memlog.Open(shared, memlog.Options{})
	defer func() { require.NoError(t, log.Close()) }()
	want := fleet(t, log, shared)
	before := len(shared.Records(topics.Tracks, 0))

	o := options(t)
	same, err := reprocess.Run(t.Context(), log, o)
	require.NoError(t, err)
	require.Equal(t, int64(2*vehicles*seconds), same.Fixes)
	require.Greater(t, same.Compared, same.Fixes, "open rows and final ones")
	require.Equal(t, same.Compared, same.Same)
	require.Empty(t, same.Worst)
	require.Zero(t, same.OnlyLive+same.OnlyNew)
	require.True(t, same.Shortened, "the log begins within the range")
	r, err := lake.NewReader(o.Out)
	require.NoError(t, err)
	for vehicle, fixes := range want {
		var got []row.Fix
		for f, err := range r.Track(t.Context(), store.TrackQuery{Vehicle: vehicle, ToMS: 1 << 42}) {
			require.NoError(t, err)
			got = append(got, f)
		}
		require.Equal(t, fixes, got, vehicle)
	}
	_, err = reprocess.Run(t.Context(), log, o)
	require.ErrorContains(t, err, "is not empty")

	o = options(t)
	o.Settings.Filter.DefaultAccuracyM = 50 // the fixes state none
	other, err := reprocess.Run(t.Context(), log, o)
	require.NoError(t, err)
	require.Equal(t, same.Compared, other.Compared)
	require.Less(t, other.Same, other.Compared)
	require.Len(t, other.Worst, 5)
	require.Equal(t, other.MaxM, other.Worst[0].DistanceM)
	for i, w := range other.Worst[1:] {
		require.LessOrEqual(t, w.DistanceM, other.Worst[i].DistanceM)
	}
	require.Positive(t, other.P50M)
	require.LessOrEqual(t, other.P50M, other.P95M)
	require.LessOrEqual(t, other.P95M, other.MaxM)
	require.Len(t, shared.Records(topics.Tracks, 0), before, "the log was only read")

	o = options(t)
	o.WarmUp = 2 * time.Hour // no vehicle has been known for so long
	warming, err := reprocess.Run(t.Context(), log, o)
	require.NoError(t, err)
	require.Equal(t, same.Fixes, warming.Fixes)
	require.Zero(t, warming.Compared)
}

func TestOptionsAreRefused(t *testing.T) {
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
	for want, change := range map[string]func(*reprocess.Options){
		"from must be before to": func(o *reprocess.Options) { o.To = o.From },
		"warm-up":                func(o *reprocess.Options) { o.WarmUp = -1 },
		"must be named":          func(o *reprocess.Options) { o.Out = "" },
		"is not empty":           func(o *reprocess.Options) { o.Out = full },
		"window":                 func(o *reprocess.Options) { o.Settings.WindowMS = -1 },
	} {
		o := options(t)
		change(&o)
		require.ErrorContains(t, o.Validate(), want)
	}
}
