package locallog

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/schemas/topics"
)

// A group that is gone holds retention back for ever, unless it is released; after that
// it is as if it had never been, also behind a restart.
func TestReleaseOfAGroup(t *testing.T) {
	clock, cfg, fs := newClock(), testConfig(), vfs.NewMem()
	cfg.SegmentAge, cfg.SegmentBytes, cfg.TailCacheBytes = time.Hour, 1<<20, 0
	l := openClocked(t, cfg, fs, clock)
	for range 3 {
		appendValues(t, l, topics.Locations, 0, "a", "b")
		clock.advance(2 * time.Hour)
	}
	checkpointAt(t, l, map[int32]int64{0: 2})
	owned, err := l.Release(t.Context(), testSpec.Group)
	require.ErrorIs(t, err, ErrOwned)
	require.Zero(t, owned)
	require.NoError(t, l.Close())

	l = openClocked(t, cfg, fs, clock)
	clock.advance(20 * 24 * time.Hour)
	require.NoError(t, retainAt(l, clock))
	require.Equal(t, int64(2), firsts(t, l, topics.Locations)[0], "the group holds its records")
	owned, err = l.Release(t.Context(), "another")
	require.NoError(t, err)
	require.Zero(t, owned)
	owned, err = l.Release(t.Context(), testSpec.Group)
	require.NoError(t, err)
	require.Positive(t, owned)
	require.NoError(t, l.Close())

	l = openClocked(t, cfg, fs, clock)
	require.NoError(t, retainAt(l, clock))
	require.Equal(t, int64(4), firsts(t, l, topics.Locations)[0], "only the newest segment is kept")
	owned, err = l.Release(t.Context(), testSpec.Group)
	require.NoError(t, err)
	require.Zero(t, owned)
}
