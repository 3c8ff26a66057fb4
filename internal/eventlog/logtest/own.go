package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/topics"
)

var ownCases = []testCase{
	{"own/every partition exactly once", nil, ownsEachOnce},
	{"own/assignment follows the group", nil, assignmentFollows},
	{"own/shutdown lets the holder checkpoint", nil, shutdownCheckpoints},
	{"own/load and checkpoint", nil, loadAndCheckpoint},
	{"own/partitions and groups have their own resume offsets", nil, resumeApart},
	{"own/load passes on the error of its function", nil, loadError},
	{"own/large checkpoint", nil, largeCheckpoint},
	{"own/serve error ends own", nil, serveErrorEnds},
	{"own/members share and hand over", []string{"Another"}, handOver},
	{"own/deposed holder notices and is fenced", []string{"Another", "Depose"}, deposedIsFenced},
}

var spec = eventlog.OwnSpec{Group: "logtest", Source: topics.Locations, State: topics.TrackerState}

// owning is an Own call under way.
type owning struct {
	cancel context.CancelFunc
	ended  chan error
}

func startOwn(l eventlog.Log, serve eventlog.Serve) *owning {
	ctx, cancel := context.WithCancel(context.Background())
	o := &owning{cancel: cancel, ended: make(chan error, 1)}
	go func() { o.ended <- l.Own(ctx, spec, serve) }()
	return o
}

func (o *owning) wait(t *testing.T, h *Harness) error {
	t.Helper()
	select {
	case err := <-o.ended:
		return err
	case <-time.After(timeout + h.Patience):
		require.FailNow(t, "Own does not return")
		return nil
	}
}

func (o *owning) stop(t *testing.T, h *Harness) {
	t.Helper()
	o.cancel()
	require.NoError(t, o.wait(t, h))
}

// untilRevoked waits as a holder does.
func untilRevoked(ctx context.Context, c eventlog.Claim) error {
	select {
	case <-c.Revoked():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func receive[T any](t *testing.T, h *Harness, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(timeout + h.Patience):
		require.FailNow(t, "missing: "+what)
		panic("unreachable")
	}
}

// onPartition owns the group, runs fn for one partition, and stops.
func onPartition(t *testing.T, h *Harness, l eventlog.Log, p int32, fn func(ctx context.Context, c eventlog.Claim)) {
	t.Helper()
	done := make(chan struct{}, 16)
	o := startOwn(l, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() == p {
			fn(ctx, c)
			done <- struct{}{}
		}
		return untilRevoked(ctx, c)
	})
	receive(t, h, done, fmt.Sprintf("a claim of partition %d", p))
	o.stop(t, h)
}

// load returns what a claim finds.
func load(ctx context.Context, t *testing.T, c eventlog.Claim) (map[string]string, int64) {
	t.Helper()
	state := make(map[string]string)
	resume, err := c.Load(ctx, func(key, value []byte) error {
		if _, twice := state[string(key)]; twice {
			return fmt.Errorf("key %q comes twice", key)
		}
		state[string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Errorf("load partition %d: %v", c.Partition(), err)
	}
	return state, resume
}

func ownsEachOnce(t *testing.T, h *Harness) {
	var mu sync.Mutex
	holding := make(map[int32]int)
	claimed := make(chan int32, 64)
	o := startOwn(h.Log, func(ctx context.Context, c eventlog.Claim) error {
		mu.Lock()
		holding[c.Partition()]++
		if holding[c.Partition()] > 1 {
			t.Errorf("partition %d is owned twice", c.Partition())
		}
		mu.Unlock()
		claimed <- c.Partition()
		err := untilRevoked(ctx, c)
		mu.Lock()
		holding[c.Partition()]--
		mu.Unlock()
		return err
	})
	seen := make(map[int32]bool)
	for len(seen) < Partitions {
		p := receive(t, h, claimed, "a claim")
		require.False(t, seen[p], "partition %d came twice", p)
		seen[p] = true
	}
	o.stop(t, h)
	for p, n := range holding {
		require.Zero(t, n, "partition %d is still served after Own returned", p)
	}
}

func shutdownCheckpoints(t *testing.T, h *Harness) {
	loaded := make(chan struct{}, 64)
	o := startOwn(h.Log, func(ctx context.Context, c eventlog.Claim) error {
		_, resume := load(ctx, t, c)
		if resume != -1 {
			t.Errorf("partition %d has a resume offset: %d", c.Partition(), resume)
		}
		loaded <- struct{}{}
		<-c.Revoked()
		if ctx.Err() != nil {
			t.Errorf("a shutdown must not cancel the holder's context")
		}
		return c.Checkpoint(ctx, []eventlog.Record{rec("last", "words")}, 10+int64(c.Partition()))
	})
	for range Partitions {
		receive(t, h, loaded, "a loaded partition")
	}
	o.stop(t, h)
	for p := range int32(Partitions) {
		onPartition(t, h, h.Log, p, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			if resume != 10+int64(p) || state["last"] != "words" {
				t.Errorf("partition %d: found %v and %d", p, state, resume)
			}
		})
	}
}

// loadAndCheckpoint compares with a map over a series of checkpoints and
// owners.
func loadAndCheckpoint(t *testing.T, h *Harness) {
	want, wantResume := map[string]string{}, int64(-1)
	rounds := [][]eventlog.Record{
		{rec("a", "1"), rec("b", "1"), rec("c", "1")},
		{rec("a", "2"), {Key: []byte("b")}},
		{},
		{rec("b", "3"), {Key: []byte("never there")}, rec("\x00\xff", "\x00binary\xff"), rec("empty", "")},
		{{Key: []byte("a")}, {Key: []byte("b")}, {Key: []byte("c")}, {Key: []byte("\x00\xff")}, {Key: []byte("empty")}},
		{rec("a", "again")},
	}
	for i, changes := range rounds {
		onPartition(t, h, h.Log, 1, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			if fmt.Sprint(want) != fmt.Sprint(state) || resume != wantResume {
				t.Errorf("round %d: loaded %v and %d, want %v and %d", i, state, resume, want, wantResume)
			}
			// Two checkpoints by one claim: the second counts.
			for step := range 2 {
				wantResume = int64(i*10 + step)
				if err := c.Checkpoint(ctx, changes, wantResume); err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			}
		})
		for _, r := range changes {
			if r.Value == nil {
				delete(want, string(r.Key))
			} else {
				want[string(r.Key)] = string(r.Value)
			}
		}
	}
}

func resumeApart(t *testing.T, h *Harness) {
	for p := range int32(2) {
		onPartition(t, h, h.Log, p, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			if len(state) != 0 || resume != -1 {
				t.Errorf("partition %d: found %v and %d", p, state, resume)
			}
			if err := c.Checkpoint(ctx, []eventlog.Record{rec("same key", fmt.Sprint(p))}, 100+int64(p)); err != nil {
				t.Error(err)
			}
		})
	}
	for p := range int32(2) {
		onPartition(t, h, h.Log, p, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			if len(state) != 1 || state["same key"] != fmt.Sprint(p) || resume != 100+int64(p) {
				t.Errorf("partition %d: found %v and %d", p, state, resume)
			}
		})
	}
}

func loadError(t *testing.T, h *Harness) {
	boom := errors.New("boom")
	onPartition(t, h, h.Log, 0, func(ctx context.Context, c eventlog.Claim) {
		load(ctx, t, c)
		if err := c.Checkpoint(ctx, []eventlog.Record{rec("k", "v")}, 1); err != nil {
			t.Error(err)
		}
	})
	onPartition(t, h, h.Log, 0, func(ctx context.Context, c eventlog.Claim) {
		if _, err := c.Load(ctx, func(_, _ []byte) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("load answered %v", err)
		}
	})
}

func largeCheckpoint(t *testing.T, h *Harness) {
	const n = 10_000
	changes := make([]eventlog.Record, n)
	for i := range changes {
		changes[i] = eventlog.Record{Key: fmt.Appendf(nil, "vehicle-%06d", i), Value: bytes.Repeat([]byte{byte(i)}, 300)}
	}
	onPartition(t, h, h.Log, 3, func(ctx context.Context, c eventlog.Claim) {
		load(ctx, t, c)
		if err := c.Checkpoint(ctx, changes, 77); err != nil {
			t.Error(err)
		}
	})
	onPartition(t, h, h.Log, 3, func(ctx context.Context, c eventlog.Claim) {
		state, resume := load(ctx, t, c)
		if len(state) != n || resume != 77 {
			t.Errorf("found %d keys and %d", len(state), resume)
		}
		for _, r := range changes {
			if state[string(r.Key)] != string(r.Value) {
				t.Errorf("key %s differs", r.Key)
				return
			}
		}
	})
}

func serveErrorEnds(t *testing.T, h *Harness) {
	boom := errors.New("boom")
	o := startOwn(h.Log, func(ctx context.Context, c eventlog.Claim) error {
		if c.Partition() == 2 {
			return boom
		}
		return untilRevoked(ctx, c)
	})
	require.ErrorIs(t, o.wait(t, h), boom)
}

// holders knows which partition is held through which log.
type holders struct {
	t       *testing.T
	mu      sync.Mutex
	by      map[int32]string
	arrived chan struct{}
}

func (hs *holders) take(p int32, name string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if before := hs.by[p]; before != "" {
		hs.t.Errorf("partition %d is held by %s and by %s", p, before, name)
	}
	hs.by[p] = name
	hs.wake()
}

func (hs *holders) leave(p int32) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	delete(hs.by, p)
	hs.wake()
}

func (hs *holders) wake() {
	select {
	case hs.arrived <- struct{}{}:
	default:
	}
}

func (hs *holders) until(h *Harness, what string, cond func(count map[string]int) bool) {
	hs.t.Helper()
	deadline := time.After(timeout + h.Patience)
	for {
		hs.mu.Lock()
		count := make(map[string]int)
		for _, name := range hs.by {
			count[name]++
		}
		hs.mu.Unlock()
		if cond(count) {
			return
		}
		select {
		case <-hs.arrived:
		case <-deadline:
			require.FailNow(hs.t, "never: "+what, "held: %v", count)
		}
	}
}

// serve counts a partition's owners in its state, and holds it.
func (hs *holders) serve(name string) eventlog.Serve {
	return func(ctx context.Context, c eventlog.Claim) error {
		hs.take(c.Partition(), name)
		defer hs.leave(c.Partition())
		_, resume := load(ctx, hs.t, c)
		if err := untilRevoked(ctx, c); err != nil {
			return err
		}
		return c.Checkpoint(ctx, []eventlog.Record{rec("owner", name)}, resume+1)
	}
}

func handOver(t *testing.T, h *Harness) {
	hs := &holders{t: t, by: make(map[int32]string), arrived: make(chan struct{}, 1)}
	a := startOwn(h.Log, hs.serve("a"))
	hs.until(h, "a owns all", func(n map[string]int) bool { return n["a"] == Partitions })
	b := startOwn(h.Another(t), hs.serve("b"))
	hs.until(h, "a and b share", func(n map[string]int) bool { return n["a"] > 0 && n["b"] > 0 && n["a"]+n["b"] == Partitions })
	a.stop(t, h)
	hs.until(h, "b owns all", func(n map[string]int) bool { return n["b"] == Partitions })
	b.stop(t, h)
	for p := range int32(Partitions) {
		onPartition(t, h, h.Log, p, func(ctx context.Context, c eventlog.Claim) {
			state, resume := load(ctx, t, c)
			// Every partition went from a to b; each checkpointed once.
			if state["owner"] != "b" || resume < 1 {
				t.Errorf("partition %d: found %v and %d", p, state, resume)
			}
		})
	}
}

// deposedIsFenced lets a holder outlive its claim, and come back.
func deposedIsFenced(t *testing.T, h *Harness) {
	type old struct {
		ctx   context.Context
		claim eventlog.Claim
	}
	olds := make(chan old, 64)
	zombie := make(chan struct{})
	var once sync.Map
	a := startOwn(h.Log, func(ctx context.Context, c eventlog.Claim) error {
		if _, again := once.LoadOrStore(c.Partition(), true); again {
			return untilRevoked(ctx, c) // given out to the same process again
		}
		load(ctx, t, c)
		if err := c.Checkpoint(ctx, []eventlog.Record{rec("by", "a")}, 1); err != nil {
			t.Errorf("first owner: %v", err)
		}
		olds <- old{ctx, c}
		<-zombie
		return nil
	})
	byPartition := make(map[int32]old)
	for range Partitions {
		o := receive(t, h, olds, "a claim of the first owner")
		byPartition[o.claim.Partition()] = o
	}
	taken := make(chan int32, 64)
	b := startOwn(h.Another(t), func(ctx context.Context, c eventlog.Claim) error {
		if _, resume := load(ctx, t, c); resume != 1 {
			t.Errorf("partition %d: the new owner found %d", c.Partition(), resume)
		}
		if err := c.Checkpoint(ctx, []eventlog.Record{rec("by", "b")}, 2); err != nil {
			t.Errorf("new owner of partition %d: %v", c.Partition(), err)
		}
		taken <- c.Partition()
		return untilRevoked(ctx, c)
	})
	h.Depose(t, spec)
	p := receive(t, h, taken, "a partition of the deposed owner")
	late := byPartition[p]
	receive(t, h, late.ctx.Done(), "the deposed owner's context to end")
	err := late.claim.Checkpoint(ctxFor(t, timeout), []eventlog.Record{rec("by", "the zombie")}, 99)
	require.ErrorIs(t, err, eventlog.ErrFenced)
	close(zombie)
	a.cancel()
	b.cancel()
	_ = a.wait(t, h) // how a deposed member ends is its adapter's business
	require.NoError(t, b.wait(t, h))
	onPartition(t, h, h.Log, p, func(ctx context.Context, c eventlog.Claim) {
		if state, resume := load(ctx, t, c); state["by"] != "b" || resume != 2 {
			t.Errorf("found %v and %d", state, resume)
		}
	})
}

// assignmentFollows holds what a group assigns to an Own call to what it serves.
func assignmentFollows(t *testing.T, h *Harness) {
	assigned := &eventlog.Assignment{}
	followed := spec
	followed.Assigned = assigned
	_, joined := assigned.Partitions()
	require.False(t, joined)
	served := make(chan int32, Partitions)
	ctx, cancel := context.WithCancel(context.Background())
	o := &owning{cancel: cancel, ended: make(chan error, 1)}
	go func() {
		o.ended <- h.Log.Own(ctx, followed, func(ctx context.Context, c eventlog.Claim) error {
			served <- c.Partition()
			return untilRevoked(ctx, c)
		})
	}()
	for range Partitions {
		receive(t, h, served, "a claim of every partition")
	}
	require.Eventually(t, func() bool {
		share, joined := assigned.Partitions()
		return joined && share == Partitions
	}, timeout+h.Patience, 5*time.Millisecond)
	o.stop(t, h)
}
