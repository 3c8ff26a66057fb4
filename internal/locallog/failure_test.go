package locallog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/schemas/topics"
)

type outcome struct {
	offset int64
	err    error
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

type outcomes chan outcome

func (e outcomes) Done(offset int64, err error) { e <- outcome{offset, err} }

func (e outcomes) next(t tester) outcome {
	t.Helper()
	select {
	case o := <-e:
		return o
	case <-time.After(20 * time.Second):
		require.FailNow(t, "an append has no outcome")
		return outcome{}
	}
}

func appendValues(t testing.TB, l *Log, topic string, p int32, values ...string) {
	t.Helper()
	e := make(outcomes, len(values))
	for _, v := range values {
		require.NoError(t, l.Append(t.Context(), topic, p, eventlog.Record{Value: []byte(v)}, e))
	}
	for range values {
		require.NoError(t, e.next(t).err)
	}
}

func readValues(t testing.TB, l *Log, topic string, p int32) []string {
	t.Helper()
	bounds, err := l.Bounds(t.Context(), topic)
	require.NoError(t, err)
	r, err := l.NewReader(t.Context(), topic, map[int32]int64{p: bounds[p].First})
	require.NoError(t, err)
	defer r.Close()
	var out []string
	for int64(len(out)) < bounds[p].End-bounds[p].First {
		b, err := r.Poll(t.Context())
		require.NoError(t, err)
		for _, s := range b.Records {
			out = append(out, string(s.Value))
		}
	}
	return out
}

// faulty is a file system in which the operations that match fail once it is
// switched on.
type faulty struct {
	vfs.FS
	on atomic.Bool
}

func newFaulty(fs vfs.FS, cause error, match func(op errorfs.Op) bool) *faulty {
	f := &faulty{}
	f.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f.on.Load() && match(op) {
			return cause
		}
		return nil
	}))
	return f
}

// TestFailedDisk lets writes and syncs fail. Nothing may be acknowledged from
// then on; everything acknowledged before is there after a restart.
func TestFailedDisk(t *testing.T) {
	isWrite := func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }
	for name, c := range map[string]struct {
		cause error
		match func(op errorfs.Op) bool
	}{
		"sync":    {errors.New("no sync"), func(op errorfs.Op) bool { return isSync(op.Kind) && isRecordLog(op.Path) }},
		"write":   {errors.New("no write"), func(op errorfs.Op) bool { return isWrite(op) && isRecordLog(op.Path) }},
		"full":    {syscall.ENOSPC, func(op errorfs.Op) bool { return isWrite(op) && isRecordLog(op.Path) }},
		"any":     {errors.New("no disk"), func(op errorfs.Op) bool { return isWrite(op) || isSync(op.Kind) }},
		"no name": {errors.New("no sync of names"), func(op errorfs.Op) bool { return isSync(op.Kind) && strings.HasSuffix(op.Path, "/records") }},
		"no file": {syscall.ENOSPC, func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite }},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			fs := newFaulty(mem, c.cause, c.match)
			l := openTest(t, testConfig(), fs)
			var want []string
			for i := range 300 {
				want = append(want, fmt.Sprintf("value-%d", i))
			}
			appendValues(t, l, topics.Locations, 2, want...)
			r, err := l.NewReader(t.Context(), topics.Locations, map[int32]int64{2: 300})
			require.NoError(t, err)

			fs.on.Store(true)
			acked := appendUntilFailure(t, l)
			<-l.Failed()
			require.ErrorIs(t, l.Err(), c.cause)

			require.ErrorContains(t, l.Append(t.Context(), topics.Locations, 2, eventlog.Record{}, make(outcomes)), "start again")
			_, err = r.Poll(t.Context())
			require.ErrorIs(t, err, l.Err())
			require.ErrorIs(t, l.Own(t.Context(), testSpec, nil), l.Err())
			require.ErrorIs(t, l.Close(), l.Err())
			alarmtest.Raised(t, metricsOf(l), "starling_locallog_failed_records_total")

			l = openTest(t, testConfig(), mem.CrashClone(vfs.CrashCloneCfg{}))
			got := readValues(t, l, topics.Locations, 2)
			require.GreaterOrEqual(t, len(got), len(want)+acked)
			require.Equal(t, want, got[:len(want)])
		})
	}
}

// TestOneFailedFlushOfTheAccount lets a single flush fail and those after it
// succeed. The groups behind it must not be acknowledged: what the account holds
// on disk is not known.
func TestOneFailedFlushOfTheAccount(t *testing.T) {
	cause := errors.New("one sync fails")
	var fs *faulty
	mem := vfs.NewCrashableMem()
	fs = newFaulty(mem, cause, func(op errorfs.Op) bool {
		return isSync(op.Kind) && strings.HasSuffix(op.Path, "/"+ends.FileName) && fs.on.CompareAndSwap(true, false)
	})
	cfg := testConfig()
	l := openTest(t, cfg, fs)
	appendValues(t, l, topics.Locations, 2, "before")
	fs.on.Store(true)
	appendUntilFailure(t, l)
	<-l.Failed()
	require.ErrorIs(t, l.Err(), cause)
	require.ErrorIs(t, l.Close(), cause)
	l = openTest(t, cfg, mem.CrashClone(vfs.CrashCloneCfg{}))
	require.Equal(t, "before", readValues(t, l, topics.Locations, 2)[0])
}

// appendUntilFailure appends large records until one fails, and
// requires that none succeeds after that. It returns the successes.
func appendUntilFailure(t *testing.T, l *Log) int {
	t.Helper()
	e := make(outcomes, 20000)
	queued := 0
	for queued < 10000 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := l.Append(ctx, topics.Locations, 2, eventlog.Record{Value: make([]byte, 1000)}, e)
		cancel()
		if err != nil {
			require.ErrorContains(t, err, "start again")
			break
		}
		queued++
	}
	acked, failed := 0, 0
	for range queued {
		o := e.next(t)
		if o.err == nil {
			require.Zero(t, failed, "nothing is acknowledged after a failure")
			acked++
		} else {
			require.NotErrorIs(t, o.err, eventlog.ErrFull, "the outcome is not known")
			failed++
		}
	}
	require.Positive(t, failed)
	require.Empty(t, e, "every append ends once")
	return acked
}

var testSpec = eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}

// A checkpoint whose sync fails is not confirmed, and ends the log: its owner
// cannot know what is stored.
func TestFailedCheckpoint(t *testing.T) {
	cause := errors.New("no sync")
	mem := vfs.NewCrashableMem()
	fs := newFaulty(mem, cause, func(op errorfs.Op) bool { return isSync(op.Kind) && !isRecordLog(op.Path) })
	l := openTest(t, testConfig(), fs)
	err := l.Own(t.Context(), testSpec, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() != 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		if _, err := c.Load(ctx, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
		if err := c.Checkpoint(ctx, []eventlog.Record{{Key: []byte("k"), Value: []byte("1")}}, 1); err != nil {
			return err
		}
		fs.on.Store(true)
		err := c.Checkpoint(ctx, []eventlog.Record{{Key: []byte("k"), Value: []byte("2")}}, 2)
		require.ErrorIs(t, err, cause)
		return err
	})
	require.ErrorIs(t, err, cause)
	<-l.Failed()
	l = openTest(t, testConfig(), mem.CrashClone(vfs.CrashCloneCfg{}))
	require.Equal(t, []int64{1}, l.resumes(topics.Locations, 0))
}

// The files of a table that cannot be written are tried again by Pebble; the
// log goes on meanwhile.
func TestFailedTableIsWrittenLater(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := newFaulty(mem, syscall.ENOSPC, func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpFileWrite && len(op.Path) > 4 && op.Path[len(op.Path)-4:] == ".sst"
	})
	l := openTest(t, testConfig(), fs)
	fs.on.Store(true)
	fill(t, l, 1000, 150) // more than one segment
	require.Eventually(t, func() bool {
		failures, _ := alarmtest.Value(t, metricsOf(l), "starling_locallog_background_errors_total")
		return failures > 0
	}, 20*time.Second, time.Millisecond)
	alarmtest.Raised(t, metricsOf(l), "starling_locallog_background_errors_total")
	fs.on.Store(false)
	fill(t, l, 1000, 1000)
	require.NoError(t, l.Close())
	l = openTest(t, testConfig(), mem.CrashClone(vfs.CrashCloneCfg{}))
	bounds, err := l.Bounds(t.Context(), topics.Locations)
	require.NoError(t, err)
	total := int64(0)
	for _, b := range bounds {
		total += b.End - b.First
	}
	require.Equal(t, int64(1150), total)
}

// Writers wait while tables are written more slowly than records come, which shows.
func TestASlowDiskMakesWritersWait(t *testing.T) {
	slow := make(chan struct{})
	l := openTest(t, testConfig(), errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			<-slow
		}
		return nil
	})))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		rec, done := eventlog.Record{Value: make([]byte, 10_000)}, make(outcomes, 1<<20)
		for {
			if err := l.Append(ctx, topics.Locations, 0, rec, done); err != nil {
				ended <- err
				return
			}
		}
	}()
	require.Eventually(t, func() bool {
		stalls, _ := alarmtest.Value(t, metricsOf(l), "starling_locallog_write_stalls_total")
		return stalls > 0
	}, 20*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	alarmtest.Raised(t, metricsOf(l), "starling_locallog_write_stalls_total")
	close(slow)
	require.NoError(t, l.Close())
}

// A read that does not end fails the log, so that the process exits: Pebble looks
// for a flipped bit in a large damaged block for minutes.
func TestReadWithoutEnd(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l := openTest(t, testConfig(), mem)
	fill(t, l, 1000, 150) // more than the tail cache holds
	require.NoError(t, l.Close())

	var on atomic.Bool
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
			<-release
		}
		return nil
	}))
	l, err := open(testConfig(), topics.All(), newRegistry(), quietLogger, environment{fs: fs, now: time.Now, readTick: 2 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	on.Store(true)
	r, err := l.NewReader(t.Context(), topics.Locations, map[int32]int64{2: 0})
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Poll(t.Context())
	require.ErrorIs(t, err, errSlowRead)
	<-l.Failed()
	require.ErrorIs(t, l.Err(), errSlowRead)
}
