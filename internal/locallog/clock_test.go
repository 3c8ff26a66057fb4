package locallog

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/schemas/topics"
)

// skewedClock is a machine whose wall clock can be set.
type skewedClock struct {
	testClock
	offset time.Duration // of the wall clock from the true time
}

func (c *skewedClock) environment(fs vfs.FS) environment {
	began := c.ms.Load()
	return environment{
		fs:      fs,
		now:     func() time.Time { return c.now().Add(c.offset) },
		elapsed: func() time.Duration { return time.Duration(c.ms.Load()-began) * time.Millisecond },
	}
}

func (c *skewedClock) open(t *testing.T, cfg Config, fs vfs.FS, logger *slog.Logger) *Log {
	t.Helper()
	l, err := open(cfg, topics.All(), newRegistry(), logger, c.environment(fs))
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func newSkewedClock() *skewedClock {
	c := &skewedClock{}
	c.ms.Store(1_700_000_000_000)
	return c
}

func stamps(t *testing.T, l *Log, p int32) []int64 {
	t.Helper()
	bounds, err := l.Bounds(t.Context(), topics.Locations)
	require.NoError(t, err)
	r, err := l.NewReader(t.Context(), topics.Locations, map[int32]int64{p: bounds[p].First})
	require.NoError(t, err)
	defer r.Close()
	var out []int64
	for int64(len(out)) < bounds[p].End-bounds[p].First {
		b, err := r.Poll(t.Context())
		require.NoError(t, err)
		for _, s := range b.Records {
			out = append(out, s.AppendTimeMS)
		}
	}
	return out
}

// A wall clock that is set while the log is open does not move its stamps, and is
// reported at most once a minute.
func TestWallClockDoesNotMoveStamps(t *testing.T) {
	clock, cfg, fs := newSkewedClock(), testConfig(), vfs.NewMem()
	cfg.SpaceInterval = time.Hour // the test looks
	var logged bytes.Buffer
	l := clock.open(t, cfg, fs, slog.New(slog.NewTextHandler(&logged, nil)))
	start := clock.ms.Load()
	var want []int64
	for i, offset := range []time.Duration{0, 8 * 24 * time.Hour, -3 * time.Hour, 0} {
		clock.offset = offset
		appendValues(t, l, topics.Locations, 0, "x")
		want = append(want, start+int64(i)*1000)
		require.InDelta(t, offset.Seconds(), l.clock.skew().Seconds(), 0.001)
		l.clock.watch(l.logger)
		clock.advance(time.Second)
	}
	require.Equal(t, want, stamps(t, l, 0))
	require.Equal(t, 1, strings.Count(logged.String(), "the wall clock differs"), logged.String())
	require.Equal(t, 1, strings.Count(logged.String(), "agrees with the log's clock again"), logged.String())
	clock.offset = time.Hour
	clock.advance(skewInterval)
	l.clock.watch(l.logger)
	require.Equal(t, 2, strings.Count(logged.String(), "the wall clock differs"), logged.String())
	alarmtest.RaisedTo(t, metricsOf(l), "starling_locallog_clock_skew_seconds", func(ahead float64) bool { return ahead > 10 })
}

// A log that was opened under a wall clock a week ahead goes on from its newest
// stamp when the clock is right again, and logs it.
func TestStampsGoOnFromTheNewest(t *testing.T) {
	clock, cfg, fs := newSkewedClock(), testConfig(), vfs.NewMem()
	start := clock.ms.Load()
	week := 7 * 24 * time.Hour
	clock.offset = week
	l := clock.open(t, cfg, fs, quietLogger)
	appendValues(t, l, topics.Locations, 0, "a")
	require.NoError(t, l.Close())
	clock.offset = 0
	clock.advance(time.Second)
	var logged bytes.Buffer
	l = clock.open(t, cfg, fs, slog.New(slog.NewTextHandler(&logged, nil)))
	require.Contains(t, logged.String(), "ahead of the wall clock")
	clock.advance(3 * time.Second)
	appendValues(t, l, topics.Locations, 0, "b")
	require.Equal(t, []int64{start + week.Milliseconds(), start + week.Milliseconds() + 3000}, stamps(t, l, 0))
}

// A log that is opened under a wall clock eight days ahead deletes nothing for
// it, nor after the next restart; when the stamps have stayed there for a day of
// their own, they are believed.
func TestRetentionDoesNotActOnAJump(t *testing.T) {
	clock, cfg, fs := newSkewedClock(), testConfig(), vfs.NewMem()
	cfg.SegmentAge = time.Minute
	l := clock.open(t, cfg, fs, quietLogger)
	grow := func(steps int, step time.Duration) {
		for range steps {
			appendValues(t, l, topics.Locations, 0, "x")
			clock.advance(step)
		}
	}
	grow(10, 2*time.Minute)
	for _, offset := range []time.Duration{8 * 24 * time.Hour, 0} {
		require.NoError(t, l.Close())
		clock.offset = offset
		l = clock.open(t, cfg, fs, quietLogger)
		grow(5, 2*time.Minute)
		require.NoError(t, l.retainOnce(stampJump))
		require.Equal(t, []int64{0, 0, 0, 0}, firsts(t, l, topics.Locations))
		alarmtest.Raised(t, metricsOf(l), "starling_locallog_retention_held_seconds")
	}
	grow(25, time.Hour) // each within the bound of a jump
	require.NoError(t, l.retainOnce(stampJump))
	require.Positive(t, firsts(t, l, topics.Locations)[0], "after a day the stamps are believed")
	require.Zero(t, l.metrics.retentionLag.Load())
}

func TestSettledTime(t *testing.T) {
	const h = int64(time.Hour / time.Millisecond)
	hours := func(stamps ...int64) []int64 {
		for i := range stamps {
			stamps[i] *= h
		}
		return stamps
	}
	for name, c := range map[string]struct {
		stamps []int64
		want   int64
	}{
		"nothing":                    {nil, 0},
		"steady":                     {hours(1, 2, 3, 4), 4},
		"a jump":                     {hours(1, 2, 200), 2},
		"not yet believed":           {hours(1, 2, 200, 201, 203, 205, 223), 2},
		"believed":                   {hours(1, 2, 200, 202, 204, 206, 208, 210, 212, 214, 216, 218, 220, 222, 224), 224},
		"a second jump begins anew":  {hours(1, 2, 200, 201, 300, 301), 2},
		"stamps that are less":       {hours(5, 3, 4, 6), 6},
		"a jump that begins the log": {hours(500), 500},
	} {
		require.Equal(t, c.want*h, settledMS(c.stamps, 2*time.Hour, 24*time.Hour), name)
	}
}
