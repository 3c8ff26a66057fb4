package repair

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/schemas/topics"
)

var quietLogger = slog.New(slog.NewTextHandler(io.Discard, nil))

func config(dir string) locallog.Config {
	c := locallog.DefaultConfig()
	c.Directory = dir
	c.Partitions = 2
	c.GroupInterval = 0
	c.SegmentBytes = 64 << 10
	c.MaxGroupBytes = 64 << 10
	c.StateMemtableBytes = 1 << 20
	c.LowWaterFreeBytes, c.LowWaterPercent = 1<<20, 0
	return c
}

func openLog(t *testing.T, dir string) *locallog.Log {
	t.Helper()
	l, err := locallog.Open(config(dir), topics.All(), prometheus.NewRegistry(), quietLogger)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

type done chan error

func (d done) Done(_ int64, err error) { d <- err }

// behind wants every record at a new offset.
type behind chan error

func (b behind) Done(offset int64, err error) {
	if err == nil && offset < perPartition {
		err = fmt.Errorf("offset %d is used again", offset)
	}
	b <- err
}

const perPartition = 600

// fill appends to both partitions of two topics.
func fill(t *testing.T, l *locallog.Log, from, to int) {
	t.Helper()
	d := make(done, 200)
	fillWith(t, l, from, to, d, d)
}

func fillWith(t *testing.T, l *locallog.Log, from, to int, d eventlog.Completion, errs <-chan error) {
	t.Helper()
	for i := from; i < to; i += 50 {
		for n := i; n < i+50; n++ {
			for _, topic := range []string{topics.Locations, topics.Tracks} {
				for p := range int32(2) {
					require.NoError(t, l.Append(t.Context(), topic, p, eventlog.Record{Key: []byte("k"), Value: value(topic, p, n)}, d))
				}
			}
		}
		for range 200 {
			require.NoError(t, <-errs)
		}
	}
}

func value(topic string, p int32, n int) []byte {
	return fmt.Appendf(nil, "%s/%d/%d %s", topic, p, n, strings.Repeat("x", n%400))
}

var spec = eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}

// checkpoint stores a resume offset in both partitions and returns what was there.
func checkpoint(t *testing.T, l *locallog.Log, resume int64) map[int32]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	found, ended := make(map[int32]int64), make(chan int64, 2)
	go func() { <-ended; <-ended; cancel() }()
	before := make(chan [2]int64, 2)
	require.NoError(t, l.Own(ctx, spec, func(ctx context.Context, c eventlog.Claim) error {
		was, err := c.Load(ctx, func(_, _ []byte) error { return nil })
		if err != nil {
			return err
		}
		before <- [2]int64{int64(c.Partition()), was}
		if err := c.Checkpoint(ctx, []eventlog.Record{{Key: []byte("k"), Value: []byte("v")}}, resume); err != nil {
			return err
		}
		ended <- 1
		<-c.Revoked()
		return nil
	}))
	for range 2 {
		b := <-before
		found[int32(b[0])] = b[1]
	}
	return found
}

// damagedLog makes a log as a SIGKILL would leave it and spoils it.
func damagedLog(t *testing.T, spoil func(t *testing.T, dir string)) string {
	t.Helper()
	return spoiledCopy(t, killedLog(t), spoil)
}

func spoiledCopy(t *testing.T, of string, spoil func(t *testing.T, dir string)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.CopyFS(dir, os.DirFS(of)))
	spoil(t, dir)
	return dir
}

func killedLog(t *testing.T) string {
	t.Helper()
	source, dir := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "log")
	l := openLog(t, source)
	fill(t, l, 0, 300)
	checkpoint(t, l, 100)
	require.NoError(t, l.Close())
	// The next start writes tables of that; what follows stands in one log of its own.
	cfg := config(source)
	cfg.SegmentBytes = 8 << 20
	l, err := locallog.Open(cfg, topics.All(), prometheus.NewRegistry(), quietLogger)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	fill(t, l, 300, perPartition)
	checkpoint(t, l, 500)
	require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
	require.NoError(t, l.Close())
	return dir
}

// largest returns the largest file that matches.
func largest(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, names, pattern)
	size := func(name string) int64 {
		info, err := os.Stat(name)
		require.NoError(t, err)
		return info.Size()
	}
	sort.Slice(names, func(i, j int) bool { return size(names[i]) > size(names[j]) })
	return names[0]
}

// newestLog returns the newest write-ahead log of a store that holds something.
func newestLog(t *testing.T, dir, store string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, store, "*.log"))
	require.NoError(t, err)
	sort.Strings(names)
	for i := len(names) - 1; i >= 0; i-- {
		if data, err := os.ReadFile(names[i]); err == nil && len(data) > 200 {
			return names[i]
		}
	}
	require.FailNow(t, "no log holds anything")
	return ""
}

// withoutOldLogs removes the logs whose content is in tables, from which a repair
// would take it.
func withoutOldLogs(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "records", "*.log"))
	require.NoError(t, err)
	sort.Strings(names)
	for _, name := range names[:len(names)-1] {
		require.NoError(t, os.Remove(name))
	}
}

func edit(t *testing.T, name string, do func(data []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, do(data), 0o644))
}

func flip(at float64) func(data []byte) []byte {
	return func(data []byte) []byte { data[int(float64(len(data))*at)] ^= 0x20; return data }
}

func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	}))
	return out
}

func TestCheckOfAWholeLog(t *testing.T) {
	dir := damagedLog(t, func(*testing.T, string) {})
	before := list(t, dir)
	report, err := Check(t.Context(), dir, quietLogger)
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	require.Equal(t, int64(4*perPartition), report.Records)
	require.Len(t, report.Partitions, 2*len(topics.All()))
	for _, p := range report.Partitions {
		require.Equal(t, p.End, p.Acknowledged)
		require.False(t, p.Damaged)
	}
	require.Equal(t, before, list(t, dir), "nothing was changed")
	_, err = Repair(t.Context(), dir, quietLogger)
	require.ErrorIs(t, err, ErrWhole)
	require.Equal(t, before, list(t, dir))
	_, err = Check(t.Context(), t.TempDir(), quietLogger)
	require.ErrorIs(t, err, ErrNoLog)
	openLog(t, dir)
	_, err = Check(t.Context(), dir, quietLogger)
	require.ErrorIs(t, err, ErrInUse)
}

// TestRepair damages every part in turn. The check names the damage, the repaired
// log opens in a raised epoch, serves everything that the outcome does not declare
// lost, and uses no acknowledged offset again.
func TestRepair(t *testing.T) {
	left := killedLog(t)
	for name, c := range map[string]struct {
		spoil     func(t *testing.T, dir string)
		lost      bool // some records are
		stateLost bool
	}{
		"flipped log": {func(t *testing.T, dir string) { edit(t, newestLog(t, dir, "records"), flip(0.3)) }, true, false},
		"zeroed log": {func(t *testing.T, dir string) {
			edit(t, newestLog(t, dir, "records"), func(b []byte) []byte { clear(b[len(b)/3:][:4096]); return b })
		}, true, false},
		"cut log": {func(t *testing.T, dir string) {
			edit(t, newestLog(t, dir, "records"), func(b []byte) []byte { return b[:len(b)/2] })
		}, true, false},
		"removed log": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(newestLog(t, dir, "records"))) }, true, false},
		"flipped table": {func(t *testing.T, dir string) {
			withoutOldLogs(t, dir)
			edit(t, largest(t, dir, "records/*.sst"), flip(0.4))
		}, true, false},
		"flipped index": {func(t *testing.T, dir string) {
			withoutOldLogs(t, dir)
			edit(t, largest(t, dir, "records/*.sst"), flip(0.999))
		}, true, false},
		"removed table": {func(t *testing.T, dir string) {
			withoutOldLogs(t, dir)
			require.NoError(t, os.Remove(largest(t, dir, "records/*.sst")))
		}, true, false},
		"flipped MANIFEST of records": {func(t *testing.T, dir string) { edit(t, largest(t, dir, "records/MANIFEST-*"), flip(0.5)) }, false, false},
		"removed records":             {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "records"))) }, true, false},
		"flipped log of the state":    {func(t *testing.T, dir string) { edit(t, newestLog(t, dir, "state"), flip(0.1)) }, false, true},
		"removed state":               {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "state"))) }, false, true},
		"account removed":             {func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, ends.FileName))) }, false, false},
		"account zeroed": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, ends.FileName), func(b []byte) []byte { clear(b); return b })
		}, false, false},
		"account removed and log cut": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, ends.FileName)))
			edit(t, newestLog(t, dir, "records"), func(b []byte) []byte { return b[:len(b)/2] })
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := spoiledCopy(t, left, c.spoil)
			report, err := Check(t.Context(), dir, quietLogger)
			require.NoError(t, err)
			require.NotEmpty(t, report.Findings)
			repairAndVerify(t, dir, &c.lost, c.stateLost)
		})
	}
}

func repairAndVerify(t *testing.T, dir string, someLost *bool, stateLost bool) {
	t.Helper()
	out, err := Repair(t.Context(), dir, quietLogger)
	require.NoError(t, err)
	require.Equal(t, stateLost, out.StateLost)
	require.GreaterOrEqual(t, out.Epoch, int64(leastEpoch))
	require.DirExists(t, out.KeptIn)
	lost := make(map[string]map[int64]bool)
	known := 0
	for _, l := range out.Lost {
		key := fmt.Sprintf("%s/%d", l.Topic, l.Partition)
		if lost[key] == nil {
			lost[key] = make(map[int64]bool)
		}
		for o := l.From; o < min(l.To, perPartition); o++ {
			lost[key][o] = true
		}
		if !l.Unknown {
			known += int(l.To - l.From)
		}
	}
	if someLost != nil {
		require.Equal(t, *someLost, known > 0, "%v", out.Lost)
	}

	report, err := Check(t.Context(), dir, quietLogger)
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	for range 2 { // and again after a restart
		l := openLog(t, dir)
		require.Equal(t, out.Epoch, l.Epoch())
		for _, topic := range []string{topics.Locations, topics.Tracks} {
			for p := range int32(2) {
				verify(t, l, topic, p, lost[fmt.Sprintf("%s/%d", topic, p)])
			}
		}
		for p, resume := range checkpoint(t, l, 555) {
			if stateLost {
				require.Contains(t, []int64{-1, 555}, resume, "partition %d", p)
			} else {
				require.Contains(t, []int64{500, 555}, resume, "partition %d", p)
			}
		}
		more := make(behind, 200)
		fillWith(t, l, 0, 50, more, more) // it takes more, at new offsets
		require.NoError(t, l.Close())
		report, err = Check(t.Context(), dir, quietLogger)
		require.NoError(t, err)
		require.Empty(t, report.Findings)
	}
}

// verify reads a partition: what is not lost is there, and nothing else below the
// acknowledged end.
func verify(t *testing.T, l *locallog.Log, topic string, p int32, lost map[int64]bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bounds, err := l.Bounds(ctx, topic)
	require.NoError(t, err)
	r, err := l.NewReader(ctx, topic, map[int32]int64{p: 0})
	require.NoError(t, err)
	defer r.Close()
	got := make(map[int64]bool)
	last := bounds[p].First - 1
	for next := bounds[p].First; next < bounds[p].End; { // never waits: the record before the end is there
		b, err := r.Poll(ctx)
		require.NoError(t, err)
		for _, s := range b.Records {
			if s.Offset < perPartition {
				require.Equal(t, string(value(topic, p, int(s.Offset))), string(s.Value), "%s partition %d offset %d", topic, p, s.Offset)
				got[s.Offset] = true
			}
			next, last = s.Offset+1, s.Offset
		}
	}
	require.Equal(t, bounds[p].End-1, last, "the record before the end can be read")
	at, err := l.NewReader(ctx, topic, map[int32]int64{p: max(bounds[p].End, perPartition)})
	require.NoError(t, err, "where the partition goes on can be read from")
	require.NoError(t, at.Close())
	for o := range int64(perPartition) {
		require.NotEqual(t, lost[o], got[o], "%s partition %d offset %d: lost %v, read %v", topic, p, o, lost[o], got[o])
	}
}

// A log whose repair was interrupted does not open; the next repair finishes it.
func TestInterruptedRepair(t *testing.T) {
	dir := damagedLog(t, func(t *testing.T, dir string) { edit(t, newestLog(t, dir, "records"), flip(0.3)) })
	d, err := open(vfs.Default, dir, quietLogger)
	require.NoError(t, err)
	require.NoError(t, d.check(t.Context()))
	require.NoError(t, d.build(t.Context()))
	require.NoError(t, d.lock.Close())
	_, err = locallog.Open(config(dir), topics.All(), prometheus.NewRegistry(), quietLogger)
	var damaged *layout.DamageError
	require.ErrorAs(t, err, &damaged)
	require.ErrorContains(t, err, "a repair was interrupted")
	report, err := Check(t.Context(), dir, quietLogger)
	require.NoError(t, err)
	require.NotEmpty(t, report.Findings)
	repairAndVerify(t, dir, nil, false)
}

// Of a record store that can't be opened nothing was read, so no partition is
// called whole.
func TestCheckOfAStoreThatDoesNotOpen(t *testing.T) {
	dir := damagedLog(t, func(t *testing.T, dir string) { edit(t, newestLog(t, dir, "records"), flip(0)) })
	report, err := Check(t.Context(), dir, quietLogger)
	require.NoError(t, err)
	require.NotEmpty(t, report.Findings)
	require.Len(t, report.Partitions, 2*len(topics.All()))
	for _, p := range report.Partitions {
		require.True(t, p.End == -1 || p.End == p.Acknowledged || p.Damaged, "%+v", p)
	}
	require.Equal(t, int64(-1), report.Partitions[0].End)
}
