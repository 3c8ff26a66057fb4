package memlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/owners"
)

// Own implements eventlog.Log.
func (l *Log) Own(ctx context.Context, spec eventlog.OwnSpec, serve eventlog.Serve) error {
	if _, err := l.topic(spec.Source, 0); err != nil {
		return fmt.Errorf("own %s: source: %w", spec.Group, err)
	}
	if _, err := l.topic(spec.State, 0); err != nil {
		return fmt.Errorf("own %s: state: %w", spec.Group, err)
	}
	if l.isClosed() {
		return l.closedErr()
	}
	l.store.mu.Lock()
	assigned := spec.Assigned
	spec = spec.Owned()
	g := l.store.group(spec)
	l.store.mu.Unlock()
	err := g.Join(ctx, l.gone, assigned, func(ctx context.Context, h *owners.Holding) error {
		return serve(ctx, &claim{log: l, spec: spec, group: g, holding: h})
	})
	if failure := l.Err(); failure != nil && errors.Is(err, eventlog.ErrClosed) {
		return failure
	}
	return err
}

// claim is used by its holder's goroutine alone.
type claim struct {
	log        *Log
	spec       eventlog.OwnSpec
	group      *groupData
	holding    *owners.Holding
	generation int64 // of this claim; zero before Load
}

// Partition implements eventlog.Claim.
func (c *claim) Partition() int32 { return c.holding.Partition }

// Revoked implements eventlog.Claim.
func (c *claim) Revoked() <-chan struct{} { return c.holding.Revoked }

// Load implements eventlog.Claim.
func (c *claim) Load(ctx context.Context, fn func(key, value []byte) error) (int64, error) {
	if err := c.usable(ctx); err != nil {
		return 0, err
	}
	if hook := c.log.opts.BeforeLoad; hook != nil {
		if err := hook(c.spec, c.Partition()); err != nil {
			return 0, err
		}
	}
	s := c.log.store
	s.mu.Lock()
	st := &c.group.states[c.Partition()]
	switch {
	case c.holding.Lost(): // must not fence the one who has it now
		s.mu.Unlock()
		return 0, eventlog.ErrFenced
	case c.generation == 0:
		st.generation++
		c.generation = st.generation
	case c.generation != st.generation:
		s.mu.Unlock()
		return 0, eventlog.ErrFenced
	}
	values, resume := maps.Clone(st.values), st.resume
	s.mu.Unlock()
	for k, v := range values {
		if err := fn([]byte(k), bytes.Clone(v)); err != nil {
			return 0, err
		}
	}
	return resume, nil
}

// Checkpoint implements eventlog.Claim.
func (c *claim) Checkpoint(ctx context.Context, changes []eventlog.Record, resume int64) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	if c.generation == 0 {
		return errors.New("checkpoint: the claim has not been loaded")
	}
	if hook := c.log.opts.BeforeCheckpoint; hook != nil {
		if err := hook(c.spec, c.Partition(), changes, resume); err != nil {
			return err
		}
	}
	if err := c.store(changes, resume); err != nil {
		return err
	}
	if hook := c.log.opts.AfterCheckpoint; hook != nil {
		return hook(c.spec, c.Partition(), changes, resume)
	}
	return nil
}

func (c *claim) store(changes []eventlog.Record, resume int64) error {
	s := c.log.store
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &c.group.states[c.Partition()]
	if st.generation != c.generation {
		return eventlog.ErrFenced
	}
	for _, r := range changes {
		if r.Value == nil {
			delete(st.values, string(r.Key))
		} else {
			st.values[string(r.Key)] = bytes.Clone(r.Value)
		}
	}
	st.resume = resume
	return nil
}

func (c *claim) usable(ctx context.Context) error {
	if c.log.isClosed() {
		return c.log.closedErr()
	}
	return ctx.Err()
}
