package locallog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/internal/locallog/repair"
	"github.com/starling-fleet/starling/schemas/topics"
)

// testClock is set by the test.
type testClock struct{ ms atomic.Int64 }

func (c *testClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *testClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func openClocked(t *testing.T, cfg Config, fs vfs.FS, clock *testClock) *Log {
	l, err := open(cfg, topics.All(), newRegistry(), quietLogger, environment{fs: fs, now: clock.now})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func segmentCount(l *Log) int {
	l.segments.RLock()
	defer l.segments.RUnlock()
	return len(l.segments.all)
}

// retainAt retains as if a record had been appended now, in steps small enough.
func retainAt(l *Log, clock *testClock) error {
	l.newestMS.Store(clock.ms.Load())
	return l.retainOnce(1 << 60)
}

func newClock() *testClock {
	c := &testClock{}
	c.ms.Store(1_700_000_000_000)
	return c
}

func firsts(t *testing.T, l *Log, topic string) []int64 {
	t.Helper()
	bounds, err := l.Bounds(t.Context(), topic)
	require.NoError(t, err)
	out := make([]int64, len(bounds))
	for i, b := range bounds {
		out[i] = b.First
	}
	return out
}

// checkpointAt stores a resume offset for each of some partitions.
func checkpointAt(t *testing.T, l *Log, resumes map[int32]int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 16)
	go func() {
		for range l.Partitions() {
			<-done
		}
		cancel()
	}()
	require.NoError(t, l.Own(ctx, testSpec, func(ctx context.Context, c eventlog.Claim) error {
		defer func() { <-c.Revoked() }()
		defer func() { done <- struct{}{} }()
		if _, err := c.Load(ctx, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
		if resume, ok := resumes[c.Partition()]; ok {
			return c.Checkpoint(ctx, nil, resume)
		}
		return nil
	}))
}

// TestRetention has a day a segment: records go when they are older than their
// topic's retention and every owners' group is past them.
func TestRetention(t *testing.T) {
	clock, cfg, fs := newClock(), testConfig(), vfs.NewMem()
	cfg.SegmentAge, cfg.SegmentBytes = 24*time.Hour, 1<<20
	cfg.TailCacheBytes = 0
	l := openClocked(t, cfg, fs, clock)
	const days = 12 // locations and tracks are kept for 7, dead letters for 28
	for range days {
		for p := range l.Partitions() {
			appendValues(t, l, topics.Locations, p, "a", "b")
			appendValues(t, l, topics.Tracks, p, "c")
			appendValues(t, l, topics.DeadLetters, p, "d")
		}
		clock.advance(24*time.Hour + time.Second)
	}
	// Of 12 days the last 7 are kept; the cutoff falls into the first of them.
	old := int64(days - 7)
	require.NoError(t, retainAt(l, clock))
	require.Equal(t, []int64{2 * old, 2 * old, 2 * old, 2 * old}, firsts(t, l, topics.Locations))
	require.Equal(t, []int64{old, old, old, old}, firsts(t, l, topics.Tracks))
	require.Equal(t, []int64{0, 0, 0, 0}, firsts(t, l, topics.DeadLetters))
	require.Equal(t, []string{"c", "c", "c", "c", "c", "c", "c"}, readValues(t, l, topics.Tracks, 2))
	require.Len(t, readValues(t, l, topics.DeadLetters, 2), days)

	// The records are gone from the store, not only hidden.
	chunks, err := l.scan(&l.topics[topics.Tracks].partitions[2], 0, 1)
	require.NoError(t, err)
	require.Empty(t, chunks)

	// An owner that lags holds its partition of its source back, and no other.
	checkpointAt(t, l, map[int32]int64{0: 1000, 1: 10, 3: 1000})
	clock.advance(7 * 24 * time.Hour)
	require.NoError(t, retainAt(l, clock))
	last := int64(days - 1)
	require.Equal(t, []int64{2 * last, 10, 2 * old, 2 * last}, firsts(t, l, topics.Locations), "partition 2 was claimed and never checkpointed")
	require.Equal(t, []int64{last, last, last, last}, firsts(t, l, topics.Tracks))

	require.NoError(t, l.Close())
	l = openClocked(t, cfg, fs, clock)
	require.Equal(t, []int64{2 * last, 10, 2 * old, 2 * last}, firsts(t, l, topics.Locations))
	require.NoError(t, retainAt(l, clock), "what owners hold back is known after a restart")
	require.Equal(t, []int64{2 * last, 10, 2 * old, 2 * last}, firsts(t, l, topics.Locations))

	// When everything but the last segment is gone, so is its index.
	checkpointAt(t, l, map[int32]int64{0: 1000, 1: 1000, 2: 1000, 3: 1000})
	clock.advance(60 * 24 * time.Hour)
	require.NoError(t, retainAt(l, clock))
	require.Equal(t, 1, segmentCount(l))
	for _, topic := range []string{topics.Locations, topics.Tracks, topics.DeadLetters} {
		require.Len(t, readValues(t, l, topic, 1), map[string]int{topics.Locations: 2, topics.Tracks: 1, topics.DeadLetters: 1}[topic])
	}
	appendValues(t, l, topics.Tracks, 1, "new")
	require.Equal(t, []string{"c", "new"}, readValues(t, l, topics.Tracks, 1))
}

// Retention that is interrupted between hiding and deleting ends after the
// restart.
func TestRetentionGoesOnAfterACrash(t *testing.T) {
	clock, cfg, mem := newClock(), testConfig(), vfs.NewCrashableMem()
	cfg.SegmentAge = time.Hour
	l := openClocked(t, cfg, mem, clock)
	for range 5 {
		appendValues(t, l, topics.Locations, 0, "a", "b", "c")
		clock.advance(2 * time.Hour)
	}
	require.NoError(t, l.truncate(&l.topics[topics.Locations].partitions[0], 9))
	require.Equal(t, 5, segmentCount(l))
	mem = mem.CrashClone(vfs.CrashCloneCfg{})
	l = openClocked(t, cfg, mem, clock)
	require.Equal(t, int64(9), firsts(t, l, topics.Locations)[0])
	require.NoError(t, l.sweep()) // if the log has not done it since it was opened
	require.Equal(t, 2, segmentCount(l))
	mem = mem.CrashClone(vfs.CrashCloneCfg{})
	l = openClocked(t, cfg, mem, clock)
	require.Equal(t, 2, segmentCount(l))
	require.Len(t, readValues(t, l, topics.Locations, 0), 6)
}

// A clock that is set back does not set append times back.
func TestAppendTimeDoesNotStepBack(t *testing.T) {
	clock, cfg, fs := newClock(), testConfig(), vfs.NewMem()
	l := openClocked(t, cfg, fs, clock)
	start := clock.ms.Load()
	appendValues(t, l, topics.Locations, 0, "a")
	clock.advance(-time.Hour)
	appendValues(t, l, topics.Locations, 0, "b")
	require.NoError(t, l.Close())
	l = openClocked(t, cfg, fs, clock)
	appendValues(t, l, topics.Locations, 0, "c")
	clock.advance(2 * time.Hour)
	appendValues(t, l, topics.Locations, 0, "d")
	r, err := l.NewReader(t.Context(), topics.Locations, map[int32]int64{0: 0})
	require.NoError(t, err)
	var times []int64
	for len(times) < 4 {
		b, err := r.Poll(t.Context())
		require.NoError(t, err)
		for _, s := range b.Records {
			times = append(times, s.AppendTimeMS)
		}
	}
	require.Equal(t, []int64{start, start, start, start + 2*time.Hour.Milliseconds()}, times, "from the newest stamp it goes on at the monotonic clock's pace")
}

// A topic's limit of bytes takes whole segments, oldest first, and never what an
// owner has yet to read or what is being written.
func TestRetentionByBytes(t *testing.T) {
	clock, cfg := newClock(), testConfig()
	cfg.SegmentBytes, cfg.SegmentAge, cfg.MaxGroupBytes, cfg.TailCacheBytes = 64<<10, 1000*time.Hour, 64<<10, 0
	cfg.RetentionBytes = []string{topics.Locations + "=300000", topics.Tracks + "=200000"}
	cfg.Retention = []string{topics.Tracks + "=0", topics.DeadLetters + "=1h"}
	l := openClocked(t, cfg, vfs.NewMem(), clock)
	value := strings.Repeat("x", 1000)
	const records = 1500 // 1.5 MB of each
	for range records / 10 {
		values := make([]string, 10)
		for i := range values {
			values[i] = value
		}
		appendValues(t, l, topics.Locations, 0, values...)
		appendValues(t, l, topics.Tracks, 0, values...)
		appendValues(t, l, topics.DeadLetters, 0, "d")
	}
	require.NoError(t, l.records.Flush())
	checkpointAt(t, l, map[int32]int64{0: 400})
	require.NoError(t, retainAt(l, clock))
	require.LessOrEqual(t, firsts(t, l, topics.Locations)[0], int64(400), "the owner has read no further")
	require.Greater(t, firsts(t, l, topics.Locations)[0], int64(300))

	checkpointAt(t, l, map[int32]int64{0: records})
	require.NoError(t, retainAt(l, clock))
	kept := records - firsts(t, l, topics.Locations)[0]
	require.Greater(t, kept, int64(100))
	require.Less(t, kept, int64(300+65+1))
	kept = records - firsts(t, l, topics.Tracks)[0]
	require.Greater(t, kept, int64(60))
	require.Less(t, kept, int64(200+65+1))
	require.Zero(t, firsts(t, l, topics.DeadLetters)[0], "it has no such limit")
	require.Len(t, readValues(t, l, topics.Tracks, 0), int(kept))

	// The set times count in place of the topics' own.
	clock.advance(300 * 24 * time.Hour)
	require.NoError(t, retainAt(l, clock))
	require.Equal(t, int64(records)-kept, firsts(t, l, topics.Tracks)[0], "kept for ever")
	require.Greater(t, firsts(t, l, topics.DeadLetters)[0], int64(100))
}

// tableBytes is what the record store's tables take on disk.
func tableBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "records", "*.sst"))
	require.NoError(t, err)
	for _, name := range tables {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		require.NoError(t, err)
		sum += info.Size()
	}
	return sum
}

// A record of a topic that is kept long holds no space of the others' records beside
// it, nor a place in the index for each segment behind it; an open, a check, and
// readers that pass over what is gone find nothing missing.
func TestRetentionOfOneTopicHoldsNoOther(t *testing.T) {
	clock, cfg := newClock(), testConfig()
	cfg.Directory = filepath.Join(t.TempDir(), "log")
	cfg.SegmentBytes, cfg.SegmentAge, cfg.MaxGroupBytes, cfg.TailCacheBytes = 64<<10, 1000*time.Hour, 64<<10, 0
	const keepBytes = 300_000
	cfg.RetentionBytes = []string{topics.Locations + "=300000", topics.Tracks + "=300000"}
	l := openClocked(t, cfg, vfs.Default, clock)
	values := make([]string, 10)
	for i := range values {
		values[i] = strings.Repeat("x", 5000)
	}
	var letters []string
	grow := func(rounds int) { // of 100 kB
		for range rounds {
			appendValues(t, l, topics.Locations, 0, values...)
			appendValues(t, l, topics.Tracks, 1, values...)
		}
		require.NoError(t, l.records.Flush())
		bounds, err := l.Bounds(t.Context(), topics.Locations)
		require.NoError(t, err)
		checkpointAt(t, l, map[int32]int64{0: bounds[0].End})
		require.NoError(t, retainAt(l, clock))
	}
	letter := func() {
		letters = append(letters, fmt.Sprint("letter ", len(letters)))
		appendValues(t, l, topics.DeadLetters, 2, letters[len(letters)-1])
	}
	for round := range 3 {
		letter()
		grow(20)
		letter()
		grow(40)
		require.NoError(t, retainAt(l, clock)) // finds what the last one has left, and nothing else
		require.Eventually(t, func() bool { return tableBytes(t, cfg.Directory) < 2*keepBytes+6*64<<10 }, 10*time.Second, 10*time.Millisecond,
			"%d bytes of tables in round %d", tableBytes(t, cfg.Directory), round)
		require.Less(t, segmentCount(l), 2*keepBytes/(64<<10)+3*len(letters)+layout.WalkedSegments)
		require.Equal(t, letters, readValues(t, l, topics.DeadLetters, 2))
		require.NoError(t, l.Close())
		report, err := repair.Check(t.Context(), cfg.Directory, quietLogger)
		require.NoError(t, err)
		require.Empty(t, report.Findings)
		l = openClocked(t, cfg, vfs.Default, clock)
		require.Equal(t, letters, readValues(t, l, topics.DeadLetters, 2))
		require.Len(t, readValues(t, l, topics.Tracks, 1), 600*(round+1)-int(firsts(t, l, topics.Tracks)[1]))
	}
	// The letters go too, and nothing is left of what was before them.
	clock.advance(300 * 24 * time.Hour)
	grow(3)
	grow(3)
	require.LessOrEqual(t, segmentCount(l), 2*keepBytes/(64<<10)+layout.WalkedSegments)
	require.Positive(t, firsts(t, l, topics.DeadLetters)[2])
}

func TestRetentionSettingsNameTheirFaults(t *testing.T) {
	cfg := testConfig()
	cfg.Retention = []string{"nosuch=1h", "tracks=soon", "tracker-state=1h", "locations=1s", "tracks"}
	cfg.RetentionBytes = []string{"locations=1", "tracks=many"}
	err := cfg.Validate()
	for _, fault := range []string{
		`retention is "nosuch=1h": must begin with a topic`, `retention is "tracks=soon": must be a duration`, `retention is "tracker-state=1h": must not be of tracker-state, of which the newest`,
		`retention is "locations=1s": must be a duration of at least 1m`, `retention is "tracks": must be`, `retention_bytes is "locations=1": must be a number of bytes of at least`, `retention_bytes is "tracks=many"`,
	} {
		require.ErrorContains(t, err, fault)
	}
}
