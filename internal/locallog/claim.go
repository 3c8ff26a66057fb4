package locallog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/owners"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// claims is what the log knows of owners.
type claims struct {
	sync.Mutex
	groups map[eventlog.OwnSpec]*owners.Group
	stored map[layout.ClaimID]*claimState
}

// claimState is what is stored of one partition of a group. Its mutex is held
// while a checkpoint is written, so that a later Load sees it as a whole.
type claimState struct {
	sync.Mutex
	generation uint64 // of the claim that loaded last
	resume     int64  // -1 before the first checkpoint
}

func (s *claimState) encode() []byte {
	b := binary.AppendUvarint(nil, s.generation)
	return binary.AppendVarint(b, s.resume)
}

func parseClaimState(b []byte) (*claimState, error) {
	s := &claimState{}
	var n, m int
	s.generation, n = binary.Uvarint(b)
	if n > 0 {
		s.resume, m = binary.Varint(b[n:])
	}
	if n <= 0 || m <= 0 {
		return nil, fmt.Errorf("claim is damaged: %x", b)
	}
	return s, nil
}

// loadClaims reads what owners have left behind.
func (l *Log) loadClaims() error {
	l.claims.groups = make(map[eventlog.OwnSpec]*owners.Group)
	l.claims.stored = make(map[layout.ClaimID]*claimState)
	it, err := l.state.NewIter(&pebble.IterOptions{LowerBound: []byte{'c'}, UpperBound: []byte{'c' + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		id, err := layout.ParseClaimKey(it.Key())
		if err != nil {
			return err
		}
		s, err := parseClaimState(it.Value())
		if err != nil {
			return err
		}
		l.claims.stored[id] = s
	}
	return it.Error()
}

// stateOf returns what is stored of a claim. From the first call on the group
// is a reader that retention waits for.
func (l *Log) stateOf(id layout.ClaimID) *claimState {
	l.claims.Lock()
	defer l.claims.Unlock()
	s := l.claims.stored[id]
	if s == nil {
		s = &claimState{resume: -1}
		l.claims.stored[id] = s
	}
	return s
}

// resumes returns, for a partition of a topic, the resume offsets of all
// groups that own it; -1 for one that has never checkpointed.
func (l *Log) resumes(source string, partition int32) []int64 {
	topic := l.topics[source].id
	l.claims.Lock()
	var states []*claimState
	for id, s := range l.claims.stored {
		if id.Source == topic && int32(id.Partition) == partition {
			states = append(states, s)
		}
	}
	l.claims.Unlock()
	var out []int64
	for _, s := range states {
		s.Lock()
		out = append(out, s.resume)
		s.Unlock()
	}
	return out
}

// Own implements eventlog.Log. Within this process the members of a group
// share the partitions; the log knows no other process.
func (l *Log) Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error {
	if _, err := l.find(spec.Source, 0); err != nil {
		return fmt.Errorf("own %s: source: %w", spec.Group, err)
	}
	t, err := l.find(spec.State, 0)
	if err != nil {
		return fmt.Errorf("own %s: state: %w", spec.Group, err)
	}
	if !t.decl.Compacted {
		return fmt.Errorf("own %s: state: topic %s is not compacted", spec.Group, spec.State)
	}
	if l.isStopped() {
		return l.stopErr()
	}
	err = l.ownersOf(spec).Join(ctx, l.stopped, spec.Assigned, func(ctx context.Context, h *owners.Holding) error {
		id := layout.ClaimID{Group: spec.Group, Source: l.topics[spec.Source].id, State: t.id, Partition: uint16(h.Partition)}
		return serve(ctx, &claim{log: l, spec: spec, id: id, holding: h, state: l.stateOf(id)})
	})
	if errors.Is(err, eventlog.ErrClosed) && l.isStopped() {
		return l.stopErr()
	}
	return err
}

// claim is used by its holder's goroutine alone.
type claim struct {
	log        *Log
	spec       eventlog.OwnSpec
	id         layout.ClaimID
	holding    *owners.Holding
	state      *claimState
	generation uint64 // of this claim; zero before Load
}

// Partition implements eventlog.Claim.
func (c *claim) Partition() int32 { return int32(c.id.Partition) }

// Revoked implements eventlog.Claim.
func (c *claim) Revoked() <-chan struct{} { return c.holding.Revoked }

// enter begins a call that uses the state store; log.calls.leave ends it.
func (c *claim) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.log.isStopped() || !c.log.calls.enter() {
		return c.log.stopErr()
	}
	return nil
}

// Load implements eventlog.Claim.
func (c *claim) Load(ctx context.Context, fn func(key, value []byte) error) (int64, error) {
	if err := c.enter(ctx); err != nil {
		return 0, err
	}
	defer c.log.calls.leave()
	c.state.Lock()
	defer c.state.Unlock()
	if err := c.fence(); err != nil {
		return 0, fmt.Errorf("load %s partition %d: %w", c.spec.State, c.id.Partition, err)
	}
	if err := c.log.values(ctx, c.id, fn); err != nil {
		return 0, fmt.Errorf("load %s partition %d: %w", c.spec.State, c.id.Partition, err)
	}
	return c.state.resume, nil
}

// fence gives the claim the newest generation and stores it; the state is
// locked. A crash afterwards leaves a generation that nobody uses.
func (c *claim) fence() error {
	switch {
	case c.holding.Lost(): // must not fence the one who has it now
		return eventlog.ErrFenced
	case c.generation == c.state.generation && c.generation != 0:
		return nil // loaded before
	case c.generation != 0:
		return eventlog.ErrFenced
	}
	next := claimState{generation: c.state.generation + 1, resume: c.state.resume}
	b := c.log.state.NewBatch()
	if err := b.Set(layout.ClaimKey('c', c.id), next.encode(), nil); err != nil {
		return err
	}
	if err := c.log.apply(b, c.log.cfg.Sync); err != nil {
		return err
	}
	c.state.generation, c.generation = next.generation, next.generation
	return nil
}

// Checkpoint implements eventlog.Claim. All of it is one batch of the state
// store.
func (c *claim) Checkpoint(ctx context.Context, changes []eventlog.Record, resume int64) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.log.calls.leave()
	c.state.Lock()
	defer c.state.Unlock()
	if c.generation == 0 {
		return fmt.Errorf("checkpoint %s partition %d: the claim has not been loaded", c.spec.State, c.id.Partition)
	}
	if c.generation != c.state.generation {
		return fmt.Errorf("checkpoint %s partition %d: %w", c.spec.State, c.id.Partition, eventlog.ErrFenced)
	}
	b, err := c.batch(changes, resume)
	if err == nil {
		c.log.spend(int64(b.Len()))
		err = c.log.apply(b, c.log.cfg.Sync)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s partition %d: %w", c.spec.State, c.id.Partition, err)
	}
	c.state.resume = resume
	return nil
}

func (c *claim) batch(changes []eventlog.Record, resume int64) (*pebble.Batch, error) {
	prefix := layout.ClaimKey('s', c.id)
	size := 256
	for _, r := range changes {
		size += len(prefix) + len(r.Key) + len(r.Value) + 16
	}
	b := c.log.state.NewBatchWithSize(size)
	var key []byte
	for _, r := range changes {
		key = append(append(key[:0], prefix...), r.Key...)
		var err error
		if r.Value == nil {
			err = b.Delete(key, nil)
		} else {
			err = b.Set(key, r.Value, nil)
		}
		if err != nil {
			return nil, err
		}
	}
	next := claimState{generation: c.generation, resume: resume}
	return b, b.Set(layout.ClaimKey('c', c.id), next.encode(), nil)
}

// ErrOwned is returned when a group is to be released that this process has
// joined.
var ErrOwned = errors.New("this process has joined the group")

// Release forgets a group of owners: its claims, resume offsets and state. Retention
// waits for it no longer, and owners that join it later begin anew. It returns how many
// partitions the group had claimed. A crash leaves all of it or nothing.
func (l *Log) Release(ctx context.Context, group string) (claims int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if l.isStopped() || !l.calls.enter() {
		return 0, l.stopErr()
	}
	defer l.calls.leave()
	l.claims.Lock()
	defer l.claims.Unlock()
	for spec := range l.claims.groups {
		if spec.Group == group {
			return 0, fmt.Errorf("release %s: %w", group, ErrOwned)
		}
	}
	b := l.state.NewBatch()
	var released []layout.ClaimID
	for id := range l.claims.stored {
		if id.Group != group {
			continue
		}
		released = append(released, id)
		state := layout.ClaimKey('s', id)
		if err := errors.Join(b.DeleteRange(state, layout.After(state), nil), b.Delete(layout.ClaimKey('c', id), nil)); err != nil {
			return 0, fmt.Errorf("release %s: %w", group, err)
		}
	}
	if len(released) == 0 {
		return 0, b.Close()
	}
	if err := l.apply(b, l.cfg.Sync); err != nil {
		return 0, fmt.Errorf("release %s: %w", group, err)
	}
	for _, id := range released {
		delete(l.claims.stored, id)
	}
	return len(released), nil
}
