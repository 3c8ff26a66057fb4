package locallog

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/backup"
	"github.com/starling-fleet/starling/schemas/topics"
)

// A backup of a log under load holds every record that was acknowledged before it
// began, and its checkpoints; the log goes on meanwhile, and what it was copied to
// is not taken for its own.
func TestBackupUnderLoad(t *testing.T) {
	fs, dir := vfs.Default, t.TempDir()
	cfg := testConfig()
	cfg.Directory = filepath.Join(dir, "log")
	l := openTest(t, cfg, fs)

	load, endLoad := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[int32]int{}
	for p := range l.Partitions() {
		wg.Go(func() {
			for n := 0; load.Err() == nil; n++ {
				done := make(outcomes, 1)
				value := []byte(fmt.Sprintf("%d/%d/%s", p, n, strings.Repeat("x", 500)))
				if l.Append(load, topics.Locations, p, eventlog.Record{Value: value}, done) != nil {
					return
				}
				if o := <-done; o.err != nil {
					return
				}
				mu.Lock()
				acknowledged[p] = n + 1
				mu.Unlock()
			}
		})
	}
	count := func() map[int32]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[int32]int{}
		for p, n := range acknowledged {
			out[p] = n
		}
		return out
	}
	waitFor := func(least int) {
		t.Helper()
		require.Eventually(t, func() bool {
			now := count()
			for p := range l.Partitions() {
				if now[p] < least {
					return false
				}
			}
			return true
		}, time.Minute, time.Millisecond)
	}
	waitFor(200) // several segments
	checkpointAt(t, l, map[int32]int64{0: 20, 1: 10, 2: 10, 3: 10})
	before := count()
	to := filepath.Join(dir, "backup")
	m, err := l.Backup(t.Context(), to)
	require.NoError(t, err)
	reached := 0
	for _, n := range count() {
		reached = max(reached, n)
	}
	waitFor(reached + 100) // the log goes on
	_, err = l.Backup(t.Context(), to)
	require.ErrorIs(t, err, backup.ErrNotEmpty)
	endLoad()
	wg.Wait()
	require.NoError(t, l.Err())
	require.NoError(t, l.Close())
	require.NoError(t, openTest(t, cfg, fs).Close(), "its account is not of the copy")

	require.Len(t, m.Partitions, len(topics.All())*int(l.Partitions()))
	for _, p := range m.Partitions {
		if p.Topic == topics.Locations {
			require.GreaterOrEqual(t, p.Acknowledged, int64(before[p.Partition]))
			require.GreaterOrEqual(t, p.End, p.Acknowledged)
		}
	}
	back := cfg
	back.Directory = to
	_, err = tryOpen(back, fs)
	require.ErrorContains(t, err, "the directory is a backup: `starling log restore`")

	back.Directory = filepath.Join(dir, "restored")
	restored, err := backup.Restore(fs, to, back.Directory, 0)
	require.NoError(t, err)
	require.Equal(t, int64(2), restored.Epoch)
	r := openTest(t, back, fs)
	require.Equal(t, int64(2), r.Epoch())
	for p := range r.Partitions() {
		values := readValues(t, r, topics.Locations, p)
		require.GreaterOrEqual(t, len(values), before[p])
		for n, value := range values {
			require.True(t, strings.HasPrefix(value, fmt.Sprintf("%d/%d/", p, n)), value[:20])
		}
	}
	require.Equal(t, int64(20), r.resumes(topics.Locations, 0)[0])
	appendValues(t, r, topics.Locations, 0, "goes on")
	require.NoError(t, r.Close())

	_, err = backup.Restore(fs, to, back.Directory, 0)
	require.ErrorIs(t, err, backup.ErrNotEmpty)
	_, err = backup.Restore(fs, cfg.Directory, filepath.Join(dir, "other"), 0)
	require.ErrorIs(t, err, backup.ErrNoBackup)
	restored, err = backup.Restore(fs, to, filepath.Join(dir, "again"), 7)
	require.NoError(t, err, "a backup stays as it is")
	require.Equal(t, int64(7), restored.Epoch)
}

// A copy of a log that is damaged is no backup.
func TestABackupThatIsNotWholeIsRefused(t *testing.T) {
	fs, cfg := vfs.NewMem(), testConfig()
	l := openTest(t, cfg, fs)
	appendValues(t, l, topics.Locations, 0, "a", "b")
	point := l.acknowledged()
	require.NoError(t, l.copyStores("/copy"))
	point[0] += 5
	_, err := backup.Seal(t.Context(), fs, "/copy", l.ends.Account().Facts, point, time.Now())
	require.ErrorContains(t, err, "was acknowledged")
	_, err = backup.Load(fs, "/copy")
	require.ErrorIs(t, err, backup.ErrNoBackup)
	require.NoError(t, l.Close())
	_, err = l.Backup(t.Context(), "/other")
	require.ErrorIs(t, err, eventlog.ErrClosed)
}
