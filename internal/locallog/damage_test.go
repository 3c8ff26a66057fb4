package locallog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
	"github.com/starling-fleet/starling/schemas/topics"
)

// acknowledged is what a log has answered for.
type acknowledged struct {
	values map[string][][]string       // by topic and partition
	state  map[int32]map[string]string // by partition
	resume map[int32]int64             // by partition
}

// busyLog appends to several segments of two topics, checkpoints, and dies as by
// SIGKILL: everything that was written is left, synced or not.
func busyLog(t *testing.T, cfg Config) (*vfs.MemFS, *acknowledged) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	l := openTest(t, cfg, mem)
	a := &acknowledged{values: make(map[string][][]string), state: make(map[int32]map[string]string), resume: make(map[int32]int64)}
	serial := 0
	appendSome := func(n int) {
		for _, topic := range witnessed {
			if a.values[topic] == nil {
				a.values[topic] = make([][]string, l.Partitions())
			}
			for p := range l.Partitions() {
				var values []string
				for range n {
					serial++
					values = append(values, fmt.Sprintf("%d %s", serial, strings.Repeat("x", serial%1500)))
				}
				appendValues(t, l, topic, p, values...)
				a.values[topic][p] = append(a.values[topic][p], values...)
			}
		}
	}
	for round := range 9 {
		appendSome(12)
		checkpointAll(t, l, a, round)
	}
	appendSome(5)
	mem = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	require.NoError(t, l.Close())
	return mem, a
}

// checkpointAll stores a checkpoint in every partition.
func checkpointAll(t *testing.T, l *Log, a *acknowledged, round int) {
	t.Helper()
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := int(l.Partitions())
	require.NoError(t, l.Own(ctx, testSpec, func(ctx context.Context, c eventlog.Claim) error {
		if _, err := c.Load(ctx, func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
		var changes []eventlog.Record
		for i := range 40 {
			changes = append(changes, eventlog.Record{Key: fmt.Appendf(nil, "v%d", (round*13+i)%100), Value: fmt.Appendf(nil, "%d/%d %01000d", round, i, i)})
		}
		if err := c.Checkpoint(ctx, changes, int64(round)); err != nil {
			return err
		}
		defer untilRevoked(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		p := c.Partition()
		if a.state[p] == nil {
			a.state[p] = make(map[string]string)
		}
		for _, r := range changes {
			a.state[p][string(r.Key)] = string(r.Value)
		}
		a.resume[p] = int64(round)
		if left--; left == 0 {
			cancel()
		}
		return nil
	}))
}

// silentLoss opens a log and reads everything. It returns what was lost without a
// word; a refusal to open, or a read that fails, is a word.
func (a *acknowledged) silentLoss(t *testing.T, cfg Config, fs vfs.FS) (loss string, word error) {
	t.Helper()
	l, err := tryOpen(cfg, fs)
	if err != nil {
		return "", err
	}
	defer l.Close()
	for topic, partitions := range a.values {
		for p, want := range partitions {
			got, err := tryRead(t, l, topic, int32(p))
			if err != nil {
				return "", err
			}
			if len(got) < len(want) {
				return fmt.Sprintf("%s partition %d: %d of %d records", topic, p, len(got), len(want)), nil
			}
			for i := range want {
				if got[i] != want[i] {
					return fmt.Sprintf("%s partition %d offset %d is another record", topic, p, i), nil
				}
			}
		}
	}
	return a.lostState(t, l)
}

func (a *acknowledged) lostState(t *testing.T, l *Log) (loss string, word error) {
	t.Helper()
	var mu sync.Mutex
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	left := len(a.state)
	err := l.Own(ctx, testSpec, func(ctx context.Context, c eventlog.Claim) error {
		got := make(map[string]string)
		resume, err := c.Load(ctx, func(k, v []byte) error { got[string(k)] = string(v); return nil })
		if err != nil {
			return err
		}
		defer untilRevoked(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		if resume != a.resume[c.Partition()] || len(got) != len(a.state[c.Partition()]) {
			loss = fmt.Sprintf("state of partition %d: resume %d instead of %d, %d keys", c.Partition(), resume, a.resume[c.Partition()], len(got))
		}
		for k, v := range a.state[c.Partition()] {
			if got[k] != v {
				loss = fmt.Sprintf("state of partition %d: key %s differs", c.Partition(), k)
			}
		}
		if left--; left == 0 {
			cancel()
		}
		return nil
	})
	return loss, err
}

func untilRevoked(ctx context.Context, c eventlog.Claim) {
	select {
	case <-c.Revoked():
	case <-ctx.Done():
	}
}

// tryRead reads what a partition claims to have, or fails.
func tryRead(t *testing.T, l *Log, topic string, p int32) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	bounds, err := l.Bounds(ctx, topic)
	if err != nil {
		return nil, err
	}
	r, err := l.NewReader(ctx, topic, map[int32]int64{p: bounds[p].First})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out []string
	for next := bounds[p].First; next < bounds[p].End; {
		b, err := r.Poll(ctx)
		if err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			return nil, err
		}
		for _, s := range b.Records {
			out = append(out, string(s.Value))
			next = s.Offset + 1
		}
	}
	return out, nil
}

// damage is what happens to a file.
type damage struct {
	name string
	do   func(data []byte, at int) []byte
}

var damages = []damage{
	{"flip", func(data []byte, at int) []byte { data[at] ^= 0x40; return data }},
	{"zero", func(data []byte, at int) []byte { clear(data[at:min(at+4096, len(data))]); return data }},
	{"truncate", func(data []byte, at int) []byte { return data[:at] }},
}

// positions are those of every class: of a log the first record's header,
// its length, payload, and the borders of blocks; of a table its blocks, index
// and footer; of a MANIFEST and of the account the same by their size.
func positions(name string, size int, dense bool) []int {
	at := []int{0, 5, 7, 20, size * 3 / 10, size / 2, size - 70, size - 20, size - 1}
	if border := 32 << 10; border < size {
		at = append(at, border-3, border, border+5, border+11)
	}
	if name == ends.FileName {
		at = append(at, size/2+3, size/2+30, size/2+200, 200)
	}
	if dense {
		for i := 0; i < size; i += 997 {
			at = append(at, i)
		}
	}
	var out []int
	seen := make(map[int]bool)
	for _, i := range at {
		if i >= 0 && i < size && !seen[i] {
			seen[i] = true
			out = append(out, i)
		}
	}
	return out
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	return data
}

func writeFile(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
}

// copyOf copies a log's directory.
func copyOf(t *testing.T, fs vfs.FS, dir string) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewMem()
	ok, err := vfs.Clone(fs, mem, dir, dir)
	require.NoError(t, err)
	require.True(t, ok)
	return mem
}

// filesOf lists the files of a log that hold something.
func filesOf(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	out := []string{path.Join(dir, ends.FileName)}
	for _, store := range []string{"records", "state"} {
		names, err := fs.List(path.Join(dir, store))
		require.NoError(t, err)
		for _, name := range names {
			if name != "LOCK" {
				out = append(out, path.Join(dir, store, name))
			}
		}
	}
	return out
}

// TestDamage flips, zeroes and cuts every kind of file at every class of
// position, and removes it. What was acknowledged is served, or the log does not
// open, or a read fails: nothing is lost without a word. STARLING_LONG=1 tries
// many more positions.
func TestDamage(t *testing.T) {
	cfg := testConfig()
	fs, a := busyLog(t, cfg)
	loss, word := a.silentLoss(t, cfg, copyOf(t, fs, cfg.Directory))
	require.NoError(t, word)
	require.Empty(t, loss)
	dense := os.Getenv("STARLING_LONG") != ""
	kinds := make(map[string]bool)
	refused, served := 0, 0
	try := func(t *testing.T, what string, spoil func(fs vfs.FS)) {
		spoiled := copyOf(t, fs, cfg.Directory)
		spoil(spoiled)
		loss, word := a.silentLoss(t, cfg, spoiled)
		require.Empty(t, loss, "%s: it went on without a word", what)
		if word != nil {
			refused++
		} else {
			served++
		}
	}
	for _, name := range filesOf(t, fs, cfg.Directory) {
		data := readFile(t, fs, name)
		try(t, "remove "+name, func(fs vfs.FS) { require.NoError(t, fs.Remove(name)) })
		kind := path.Base(path.Dir(name)) + path.Ext(name)
		if path.Ext(name) == "" {
			kind += strings.TrimRight(path.Base(name), "0123456789")
		}
		if kinds[kind] && !dense || len(data) < 100 {
			continue
		}
		kinds[kind] = true
		for _, d := range damages {
			for i, at := range positions(path.Base(name), len(data), dense) {
				if i%2 == 1 && d.name != "flip" && !dense {
					continue
				}
				try(t, fmt.Sprintf("%s %s at %d of %d", d.name, name, at, len(data)), func(fs vfs.FS) {
					writeFile(t, fs, name, d.do(bytes.Clone(data), at))
				})
			}
		}
	}
	for _, kind := range []string{"records.sst", "state.sst", "records.log", "state.log", "recordsMANIFEST-", "stateMANIFEST-"} {
		require.True(t, kinds[kind], "%s of %v", kind, kinds)
	}
	require.Positive(t, refused)
	require.Positive(t, served)
	t.Logf("%v: %d refused, %d served everything", kinds, refused, served)
}

// A newest log of the record store that is damaged in its middle is refused, with
// every missing offset of every topic by name.
func TestDamagedLogIsNamed(t *testing.T) {
	cfg := testConfig()
	cfg.SegmentBytes = 1 << 20 // everything stands in the write-ahead log
	cfg.MaxBufferBytes = 1 << 20
	fs, a := busyLog(t, cfg)
	for _, name := range filesOf(t, fs, cfg.Directory) {
		if !isRecordLog(name) {
			continue
		}
		data := readFile(t, fs, name)
		if len(data) < 10_000 {
			continue
		}
		for _, d := range damages {
			spoiled := copyOf(t, fs, cfg.Directory)
			writeFile(t, spoiled, name, d.do(bytes.Clone(data), len(data)*3/10))
			before := readAllFiles(t, spoiled, cfg.Directory)
			_, err := tryOpen(cfg, spoiled)
			var damaged *layout.DamageError
			require.ErrorAs(t, err, &damaged, d.name)
			require.ErrorContains(t, err, "starling log check --data /log")
			require.ErrorContains(t, err, "starling log repair --data /log")
			require.Equal(t, before, readAllFiles(t, spoiled, cfg.Directory), "nothing was changed")
			if strings.Contains(err.Error(), "can't be opened") {
				continue // Pebble itself has seen it
			}
			missing := make(map[string]bool)
			for _, f := range damaged.Findings {
				if f.To > f.From {
					missing[f.Topic] = true
					require.Equal(t, int64(len(a.values[f.Topic][f.Partition])), f.To)
				}
			}
			require.Equal(t, map[string]bool{topics.Locations: true, topics.Tracks: true}, missing)
		}
	}
}

func readAllFiles(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, name := range filesOf(t, fs, dir) {
		out[name] = string(readFile(t, fs, name))
	}
	return out
}

// A store, the account or everything but the account that is removed is refused.
func TestMissingPartsAreNamed(t *testing.T) {
	cfg := testConfig()
	fs, _ := busyLog(t, cfg)
	for part, text := range map[string]string{
		"records":     "locations partition 3: offsets 0 to 112 (113 records)",
		"state":       "state: the whole store is missing",
		ends.FileName: "the file is missing",
	} {
		spoiled := copyOf(t, fs, cfg.Directory)
		require.NoError(t, spoiled.RemoveAll(path.Join(cfg.Directory, part)))
		_, err := tryOpen(cfg, spoiled)
		var damaged *layout.DamageError
		require.ErrorAs(t, err, &damaged, part)
		require.ErrorContains(t, err, text)
	}
	spoiled := copyOf(t, fs, cfg.Directory)
	writeFile(t, spoiled, path.Join(cfg.Directory, ends.FileName), make([]byte, 8192))
	_, err := tryOpen(cfg, spoiled)
	require.ErrorContains(t, err, "both slots of synced-ends")
}

// An account or a store that is older than the rest is refused.
func TestOlderPartsAreRefused(t *testing.T) {
	cfg, mem := testConfig(), vfs.NewMem()
	l := openTest(t, cfg, mem)
	fill(t, l, 100, 200)
	require.NoError(t, l.Close())
	older := copyOf(t, mem, cfg.Directory)
	l = openTest(t, cfg, mem)
	fill(t, l, 1000, 2000)
	require.NoError(t, l.Close())
	for _, part := range []string{"records", "state", ends.FileName} {
		mixed := copyOf(t, mem, cfg.Directory)
		require.NoError(t, mixed.RemoveAll(path.Join(cfg.Directory, part)))
		_, err := vfs.Clone(older, mixed, path.Join(cfg.Directory, part), path.Join(cfg.Directory, part))
		require.NoError(t, err)
		_, err = tryOpen(cfg, mixed)
		var damaged *layout.DamageError
		require.ErrorAs(t, err, &damaged, part)
	}
}
