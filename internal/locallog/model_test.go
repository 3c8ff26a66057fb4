package locallog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// model is what a log ought to be: slices and maps.
type model struct {
	t   *rapid.T
	cfg Config
	mem *vfs.MemFS
	log *Log

	records map[int32][]string // all that were ever acknowledged
	first   map[int32]int64
	state   map[int32]map[string]string
	resume  map[int32]int64
	readers []*modelReader
	serial  int
}

type modelReader struct {
	reader eventlog.Reader
	next   map[int32]int64
}

// TestModel compares the log with the model over random histories of appends,
// reads, checkpoints, truncations, restarts and power cuts.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		defer m.log.Close()
		rt.Repeat(map[string]func(*rapid.T){
			"append":     m.append,
			"read":       m.read,
			"new reader": m.newReader,
			"checkpoint": m.checkpoint,
			"truncate":   m.truncate,
			"reopen":     m.reopen,
			"power cut":  m.powerCut,
			"":           m.check,
		})
	})
}

func newModel(rt *rapid.T) *model {
	cfg := testConfig()
	cfg.Partitions = 2
	cfg.TailCacheBytes = rapid.SampledFrom([]int64{0, 2 << 10, 1 << 20}).Draw(rt, "tail cache")
	m := &model{
		t: rt, cfg: cfg, mem: vfs.NewCrashableMem(),
		records: make(map[int32][]string), first: make(map[int32]int64),
		state: make(map[int32]map[string]string), resume: map[int32]int64{0: -1, 1: -1},
	}
	m.open()
	return m
}

func (m *model) open() {
	var err error
	m.log, err = tryOpen(m.cfg, m.mem)
	require.NoError(m.t, err)
	m.readers = nil
}

func (m *model) partition(t *rapid.T) int32 { return rapid.Int32Range(0, 1).Draw(t, "partition") }

func (m *model) append(t *rapid.T) {
	n := rapid.IntRange(1, 60).Draw(t, "records")
	e := make(outcomes, n)
	p := m.partition(t)
	for range n {
		m.serial++
		value := fmt.Sprintf("%d%*s", m.serial, rapid.SampledFrom([]int{0, 1, 127, 3000}).Draw(t, "ballast"), "")
		require.NoError(t, m.log.Append(context.Background(), topics.Tracks, p, eventlog.Record{Value: []byte(value)}, e))
		m.records[p] = append(m.records[p], value)
	}
	for i := range n {
		require.Equal(t, outcome{int64(len(m.records[p]) - n + i), nil}, e.next(t))
	}
}

func (m *model) newReader(t *rapid.T) {
	start := make(map[int32]int64)
	for p := range int32(2) {
		if rapid.Bool().Draw(t, "with partition") {
			start[p] = rapid.Int64Range(m.first[p], int64(len(m.records[p]))).Draw(t, "start")
		}
	}
	r, err := m.log.NewReader(context.Background(), topics.Tracks, maps.Clone(start))
	require.NoError(t, err)
	m.readers = append(m.readers, &modelReader{r, start})
}

// read lets one reader read all there is for it.
func (m *model) read(t *rapid.T) {
	if len(m.readers) == 0 {
		t.Skip("there is no reader")
	}
	i := rapid.IntRange(0, len(m.readers)-1).Draw(t, "reader")
	r := m.readers[i]
	for p, next := range r.next {
		if next < m.first[p] {
			m.expectTruncated(t, r, i)
			return
		}
	}
	for !m.caughtUp(r) {
		b, err := r.reader.Poll(context.Background())
		require.NoError(t, err)
		require.Equal(t, int64(len(m.records[b.Partition])), b.End)
		for _, s := range b.Records {
			require.Equal(t, r.next[b.Partition], s.Offset)
			require.Equal(t, m.records[b.Partition][s.Offset], string(s.Value))
			r.next[b.Partition]++
		}
	}
}

func (m *model) caughtUp(r *modelReader) bool {
	for p, next := range r.next {
		if next < int64(len(m.records[p])) {
			return false
		}
	}
	return true
}

// expectTruncated polls until the reader reports that records are gone.
func (m *model) expectTruncated(t *rapid.T, r *modelReader, i int) {
	for {
		b, err := r.reader.Poll(context.Background())
		if err == nil {
			for _, s := range b.Records {
				require.Equal(t, m.records[b.Partition][s.Offset], string(s.Value))
			}
			r.next[b.Partition] += int64(len(b.Records))
			continue
		}
		var gone *eventlog.TruncatedError
		require.ErrorAs(t, err, &gone)
		require.Equal(t, eventlog.TruncatedError{Topic: topics.Tracks, Partition: gone.Partition, Want: r.next[gone.Partition], First: m.first[gone.Partition]}, *gone)
		require.NoError(t, r.reader.Close())
		m.readers = slices.Delete(m.readers, i, i+1)
		return
	}
}

func (m *model) checkpoint(t *rapid.T) {
	p := m.partition(t)
	wantState, wantResume := m.state[p], m.resume[p]
	changes := m.drawChanges(t, p)
	m.resume[p] = rapid.Int64Range(0, 1000).Draw(t, "resume")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	require.NoError(t, m.log.Own(ctx, testSpec, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() != p {
			<-c.Revoked()
			return nil
		}
		found := make(map[string]string)
		resume, err := c.Load(ctx, func(key, value []byte) error {
			found[string(key)] = string(value)
			return nil
		})
		if err != nil {
			return err
		}
		if resume != wantResume || !maps.Equal(found, wantState) {
			return fmt.Errorf("partition %d: loaded %v and %d, want %v and %d", p, found, resume, wantState, wantResume)
		}
		cancel()
		<-c.Revoked()
		return c.Checkpoint(ctx, changes, m.resume[p])
	}))
}

// drawChanges draws the changes of a checkpoint and makes them in the model.
func (m *model) drawChanges(t *rapid.T, p int32) []eventlog.Record {
	state := maps.Clone(m.state[p])
	if state == nil {
		state = make(map[string]string)
	}
	var changes []eventlog.Record
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		m.serial++
		key := fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "key"))
		if rapid.IntRange(0, 2).Draw(t, "deletes") == 0 {
			changes = append(changes, eventlog.Record{Key: []byte(key)})
			delete(state, key)
		} else {
			changes = append(changes, eventlog.Record{Key: []byte(key), Value: fmt.Append(nil, m.serial)})
			state[key] = fmt.Sprint(m.serial)
		}
	}
	m.state[p] = state
	return changes
}

func (m *model) truncate(t *rapid.T) {
	p := m.partition(t)
	before := rapid.Int64Range(m.first[p], int64(len(m.records[p]))).Draw(t, "before")
	require.NoError(t, m.log.truncate(&m.log.topics[topics.Tracks].partitions[p], before))
	m.first[p] = before
	if rapid.Bool().Draw(t, "sweep") {
		require.NoError(t, m.log.sweep())
	}
}

// reopen and powerCut are slow, so they come to pass a third of the times.
func (m *model) reopen(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "happens") > 0 {
		return
	}
	require.NoError(t, m.log.Close())
	m.open()
}

func (m *model) powerCut(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "happens") > 0 {
		return
	}
	left := m.mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, m.log.Close())
	m.mem = left
	m.open()
}

func (m *model) check(t *rapid.T) {
	bounds, err := m.log.Bounds(context.Background(), topics.Tracks)
	require.NoError(t, err)
	for p, b := range bounds {
		require.Equal(t, eventlog.Bounds{First: m.first[int32(p)], End: int64(len(m.records[int32(p)]))}, b)
	}
}
