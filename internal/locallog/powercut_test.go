package locallog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

// witness knows what was acknowledged to appenders, readers have seen and owners have
// checkpointed. Record n of a partition contains n.
type witness struct {
	mu      sync.Mutex
	known   [2][]int64 // by topic and partition: how many records are acknowledged or seen
	resume  []int64    // by partition: of the last checkpoint that was answered
	trouble error
}

var witnessed = [2]string{topics.Locations, topics.Tracks}

func newWitness(partitions int) *witness {
	w := &witness{resume: make([]int64, partitions)}
	for i := range w.known {
		w.known[i] = make([]int64, partitions)
	}
	for p := range w.resume {
		w.resume[p] = -1
	}
	return w
}

// copy is what is known at one instant.
func (w *witness) copy() *witness {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := newWitness(len(w.resume))
	for i := range w.known {
		copy(c.known[i], w.known[i])
	}
	copy(c.resume, w.resume)
	return c
}

func (w *witness) knows(topic int, partition int32, count int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[topic][partition] = max(w.known[topic][partition], count)
}

func (w *witness) object(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = errors.Join(w.trouble, fmt.Errorf(format, args...))
}

type toldWitness struct {
	w         *witness
	topic     int
	partition int32
	n         int64
}

func (d toldWitness) Done(offset int64, err error) {
	switch {
	case err != nil:
	case offset != d.n:
		d.w.object("append %d of topic %d partition %d has offset %d", d.n, d.topic, d.partition, offset)
	default:
		d.w.knows(d.topic, d.partition, d.n+1)
	}
}

// valueOf is the value of record n: its number and some ballast.
func valueOf(n int64) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(n))
	return append(b, make([]byte, n*37%300)...)
}

// load appends, reads and checkpoints through l until ctx ends.
func (w *witness) load(ctx context.Context, l *Log) *sync.WaitGroup {
	var wg sync.WaitGroup
	for topic, name := range witnessed {
		for p := range l.Partitions() {
			wg.Go(func() { w.appendTo(ctx, l, topic, name, p) })
		}
		wg.Go(func() { w.readFrom(ctx, l, topic, name) })
	}
	wg.Go(func() {
		spec := eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}
		_ = l.Own(ctx, spec, func(_ context.Context, c eventlog.Claim) error { return w.own(ctx, c) })
	})
	return &wg
}

func (w *witness) appendTo(ctx context.Context, l *Log, topic int, name string, p int32) {
	bounds, err := l.Bounds(ctx, name)
	if err != nil {
		return
	}
	for n := bounds[p].End; ctx.Err() == nil; n++ {
		rec := eventlog.Record{Key: []byte("k"), Value: valueOf(n)}
		if l.Append(ctx, name, p, rec, toldWitness{w, topic, p, n}) != nil {
			return
		}
		if n%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func (w *witness) readFrom(ctx context.Context, l *Log, topic int, name string) {
	start := make(map[int32]int64)
	bounds, err := l.Bounds(ctx, name)
	if err != nil {
		return
	}
	for p, b := range bounds {
		start[int32(p)] = b.End
	}
	r, err := l.NewReader(ctx, name, start)
	if err != nil {
		return
	}
	defer r.Close()
	for {
		b, err := r.Poll(ctx)
		if err != nil {
			return
		}
		w.knows(topic, b.Partition, b.Records[len(b.Records)-1].Offset+1)
	}
}

func (w *witness) own(ctx context.Context, c eventlog.Claim) error {
	resume, err := c.Load(ctx, func(_, _ []byte) error { return nil })
	if err != nil {
		return nil //nolint:nilerr // the power has been cut
	}
	for n := resume + 1; ctx.Err() == nil; n++ {
		changes := make([]eventlog.Record, 20)
		for i := range changes {
			changes[i] = eventlog.Record{Key: []byte{byte(i)}, Value: binary.BigEndian.AppendUint64(nil, uint64(n))}
		}
		if c.Checkpoint(ctx, changes, n) != nil {
			return nil
		}
		w.mu.Lock()
		w.resume[c.Partition()] = n
		w.mu.Unlock()
	}
	return nil
}

// check holds what is left after a power cut against what was known before.
func (w *witness) check(t *testing.T, l *Log) {
	t.Helper()
	for topic, name := range witnessed {
		bounds, err := l.Bounds(t.Context(), name)
		require.NoError(t, err)
		for p, b := range bounds {
			require.GreaterOrEqual(t, b.End, w.known[topic][p], "%s partition %d lost what was acknowledged or read", name, p)
			checkValues(t, l, name, int32(p), b)
		}
	}
	var mu sync.Mutex
	loaded := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec := eventlog.OwnSpec{Group: "g", Source: topics.Locations, State: topics.TrackerState}
	require.NoError(t, l.Own(ctx, spec, func(ctx context.Context, c eventlog.Claim) error {
		values := make(map[int64]int)
		resume, err := c.Load(ctx, func(_, value []byte) error {
			values[int64(binary.BigEndian.Uint64(value))]++
			return nil
		})
		mu.Lock()
		if loaded++; loaded == int(l.Partitions()) {
			cancel()
		}
		mu.Unlock()
		switch {
		case err != nil:
			return err
		case resume < w.resume[c.Partition()]:
			return fmt.Errorf("partition %d: checkpoint %d was answered, %d is left", c.Partition(), w.resume[c.Partition()], resume)
		case resume >= 0 && (len(values) != 1 || values[resume] != 20):
			return fmt.Errorf("partition %d: checkpoint %d is torn: %v", c.Partition(), resume, values)
		}
		<-c.Revoked()
		return nil
	}))
}

func checkValues(t *testing.T, l *Log, name string, p int32, b eventlog.Bounds) {
	t.Helper()
	if b.First == b.End {
		return
	}
	r, err := l.NewReader(t.Context(), name, map[int32]int64{p: b.First})
	require.NoError(t, err)
	defer r.Close()
	lastTime := int64(0)
	for next := b.First; next < b.End; {
		batch, err := r.Poll(t.Context())
		require.NoError(t, err)
		for _, s := range batch.Records {
			require.Equal(t, next, s.Offset)
			require.Equal(t, valueOf(next), s.Value, "%s partition %d offset %d", name, p, next)
			require.GreaterOrEqual(t, s.AppendTimeMS, lastTime)
			lastTime = s.AppendTimeMS
			next++
		}
	}
}

// TestPowerCut cuts the power at random operations of the file system, while
// appenders, readers, owners and retention are at work, and starts again from
// what a disk may hold then. STARLING_LONG=1 makes it many more.
func TestPowerCut(t *testing.T) {
	seeds := uint64(3)
	if os.Getenv("STARLING_LONG") != "" {
		seeds = 200
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { powerCut(t, seed) })
	}
}

func powerCut(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	cfg := testConfig()
	cfg.GroupInterval = time.Duration(rng.IntN(3)) * 100 * time.Microsecond
	cfg.TailCacheBytes = int64(rng.IntN(2)) * 32 << 10
	mem := vfs.NewCrashableMem()
	known := newWitness(cfg.Partitions)
	for range 4 {
		var ops atomic.Int64
		cutAt := int64(50 + rng.IntN(1500))
		unsynced := rng.IntN(101)
		cloneSeed := rng.Uint64()
		var left *vfs.MemFS
		var before *witness
		cut := make(chan struct{})
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			if ops.Add(1) == cutAt {
				before = known.copy()
				left = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(cloneSeed, 2))})
				close(cut)
			}
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		l, err := open(cfg, topics.All(), newRegistry(), quietLogger, environment{fs: fs, now: time.Now})
		require.NoError(t, err)
		load := known.load(ctx, l)
		load.Go(func() {
			for ctx.Err() == nil {
				truncateSome(ctx, l)
				time.Sleep(5 * time.Millisecond)
			}
		})
		select {
		case <-cut:
		case <-time.After(30 * time.Second):
			require.FailNow(t, "the power was never cut", "%d operations of %d", ops.Load(), cutAt)
		}
		cancel()
		load.Wait()
		require.NoError(t, l.Close())
		require.NoError(t, known.trouble)

		known, mem = before, left
		l = openTest(t, cfg, mem)
		known.check(t, l)
		require.NoError(t, l.Close())
	}
}

// truncateSome deletes the older half of every partition.
func truncateSome(ctx context.Context, l *Log) {
	for _, name := range witnessed {
		bounds, err := l.Bounds(ctx, name)
		if err != nil {
			return
		}
		for p, b := range bounds {
			if b.End-b.First > 500 {
				_ = l.truncate(&l.topics[name].partitions[p], b.First+(b.End-b.First)/2)
			}
		}
	}
	_ = l.sweep()
}
