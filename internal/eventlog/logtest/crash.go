package logtest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

var crashCases = []testCase{
	{"restart/keeps everything in order", []string{"Reopen"}, reopenKeeps},
	{"restart/keeps checkpoints", []string{"Reopen"}, reopenKeepsState},
	{"restart/keeps what was truncated away", []string{"Reopen", "Truncate"}, reopenKeepsBounds},
	{"crash/keeps what was acked or read", []string{"Crash"}, crashKeeps},
	{"crash/checkpoints are all or nothing", []string{"Crash"}, crashAtomic},
}

func reopenKeeps(t *testing.T, h *Harness) {
	log := h.Log
	want := make(map[int32][]eventlog.Stored)
	for round := range 3 {
		for p := range int32(Partitions) {
			appendN(t, log, topics.Locations, p, fmt.Sprintf("round-%d", round), 100)
		}
		got := readAll(t, log, topics.Locations, fromFirst(t, log, topics.Locations), (round+1)*100*Partitions)
		for p, records := range want {
			require.Equal(t, records, got[p][:len(records)], "partition %d", p)
		}
		want = got
		epoch := log.Epoch()
		log = h.Reopen(t)
		require.Equal(t, epoch, log.Epoch())
		bounds, err := log.Bounds(ctxFor(t, timeout), topics.Locations)
		require.NoError(t, err)
		for p, b := range bounds {
			records := want[int32(p)]
			require.Equal(t, eventlog.Bounds{First: records[0].Offset, End: records[len(records)-1].Offset + 1}, b)
		}
	}
}

func reopenKeepsState(t *testing.T, h *Harness) {
	onPartition(t, h, h.Log, 0, func(ctx context.Context, c eventlog.Claim) {
		load(ctx, t, c)
		if err := c.Checkpoint(ctx, []eventlog.Record{rec("a", "1"), rec("b", "1")}, 5); err != nil {
			t.Error(err)
		}
		if err := c.Checkpoint(ctx, []eventlog.Record{rec("a", "2"), {Key: []byte("b")}}, 6); err != nil {
			t.Error(err)
		}
	})
	onPartition(t, h, h.Reopen(t), 0, func(ctx context.Context, c eventlog.Claim) {
		state, resume := load(ctx, t, c)
		if len(state) != 1 || state["a"] != "2" || resume != 6 {
			t.Errorf("found %v and %d", state, resume)
		}
	})
}

func reopenKeepsBounds(t *testing.T, h *Harness) {
	offsets := appendN(t, h.Log, topics.Locations, 1, "x", 50)
	h.Truncate(t, topics.Locations, 1, offsets[49]+1)
	log := h.Reopen(t)
	bounds, err := log.Bounds(ctxFor(t, timeout), topics.Locations)
	require.NoError(t, err)
	require.Equal(t, eventlog.Bounds{First: offsets[49] + 1, End: offsets[49] + 1}, bounds[1])
	more := appendN(t, log, topics.Locations, 1, "y", 1)
	require.Greater(t, more[0], offsets[49], "offsets are not used again")
}

// crashKeeps crashes under load, several times.
func crashKeeps(t *testing.T, h *Harness) {
	log := h.Log
	acked := make(map[int32]map[int64]string) // acknowledged
	read := make(map[int32]map[int64]string)  // seen by a reader
	for p := range int32(Partitions) {
		acked[p], read[p] = make(map[int64]string), make(map[int64]string)
	}
	for round := range 4 {
		old := log
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		f := newOutcomes()
		for w := range Partitions {
			wg.Go(func() {
				for i := range 5000 {
					id := i*Partitions + w
					if old.Append(ctx, topics.Locations, int32(w), rec("k", fmt.Sprintf("%d-%d", round, id)), f.one(id)) != nil {
						return
					}
				}
			})
		}
		var seen []eventlog.Batch
		var mu sync.Mutex
		r, err := log.NewReader(ctx, topics.Locations, fromFirst(t, log, topics.Locations))
		require.NoError(t, err)
		wg.Go(func() {
			for {
				b, err := r.Poll(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				seen = append(seen, b)
				mu.Unlock()
			}
		})
		f.wait(t, 500*(round+1))
		mu.Lock()
		for _, b := range seen { // read before the crash began
			for _, s := range b.Records {
				read[b.Partition][s.Offset] = string(s.Value)
			}
		}
		mu.Unlock()
		for _, o := range f.all() { // acked before the crash began
			if o.err == nil {
				acked[int32(o.id%Partitions)][o.offset] = fmt.Sprintf("%d-%d", round, o.id)
			}
		}
		log = h.Crash(t)
		cancel()
		_ = old.Close()
		wg.Wait()

		bounds, err := log.Bounds(ctxFor(t, timeout), topics.Locations)
		require.NoError(t, err)
		got := readToEnd(t, log, bounds)
		for p := range int32(Partitions) {
			for what, want := range map[string]map[int64]string{"acked": acked[p], "read": read[p]} {
				for offset, value := range want {
					require.Equal(t, value, got[p][offset], "round %d partition %d offset %d, which was %s", round, p, offset, what)
				}
			}
		}
	}
}

func readToEnd(t *testing.T, log eventlog.Log, bounds []eventlog.Bounds) map[int32]map[int64]string {
	t.Helper()
	got, start := make(map[int32]map[int64]string), make(map[int32]int64)
	for p, b := range bounds {
		got[int32(p)] = make(map[int64]string)
		if b.First < b.End {
			start[int32(p)] = b.First
		}
	}
	r, err := log.NewReader(ctxFor(t, timeout), topics.Locations, start)
	require.NoError(t, err)
	defer closeReader(t, r)
	for len(start) > 0 {
		b, err := r.Poll(ctxFor(t, timeout))
		require.NoError(t, err)
		requireBatch(t, b)
		for _, s := range b.Records {
			got[b.Partition][s.Offset] = string(s.Value)
			if s.Offset+1 >= bounds[b.Partition].End {
				delete(start, b.Partition)
			}
		}
	}
	return got
}

// crashAtomic crashes between and during checkpoints in which every key states
// the same number as the resume offset.
func crashAtomic(t *testing.T, h *Harness) {
	log := h.Log
	acked := int64(-1)
	for round := range 3 {
		var mu sync.Mutex
		enough := make(chan struct{}, 1)
		base := acked
		o := startOwn(log, func(ctx context.Context, c eventlog.Claim) error {
			if c.Partition() != 0 {
				return untilRevoked(ctx, c)
			}
			load(ctx, t, c)
			for n := base + 1; ; n++ {
				changes := make([]eventlog.Record, 50)
				for i := range changes {
					changes[i] = rec(fmt.Sprintf("key-%d", i), fmt.Sprint(n))
				}
				if err := c.Checkpoint(ctx, changes, n); err != nil {
					return err
				}
				mu.Lock()
				acked = n
				mu.Unlock()
				if n > base+int64(10*(round+1)) {
					select {
					case enough <- struct{}{}:
					default:
					}
				}
			}
		})
		receive(t, h, enough, "some checkpoints")
		mu.Lock()
		least := acked
		mu.Unlock()
		old := log
		log = h.Crash(t)
		o.cancel()
		_ = old.Close()
		_ = o.wait(t, h) // how it ends depends on where the crash met it
		onPartition(t, h, log, 0, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			if resume < least || len(state) != 50 {
				t.Errorf("round %d: found %d keys and %d, acked was %d", round, len(state), resume, least)
			}
			for k, v := range state {
				if v != fmt.Sprint(resume) {
					t.Errorf("round %d: %s is %s in the checkpoint of %d", round, k, v, resume)
				}
			}
			mu.Lock()
			acked = resume
			mu.Unlock()
		})
	}
}
