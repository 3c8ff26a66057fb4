package events

import (
	"context"
	"sync"
	"time"
)

// maxPending bounds the messages that Run has not delivered yet; rides of which
// more come are to be compared.
const maxPending = 10_000

// Memory is a store within one process.
type Memory struct {
	bounds Bounds
	now    func() time.Time
	wake   chan struct{}

	mu         sync.Mutex
	rides      map[string]*kept
	subscribed map[string]bool
	pending    []Message
	missed     map[string]bool // rides of which messages were dropped
	swept      time.Time
}

type kept struct {
	messages []Message
	last     time.Time
}

// NewMemory returns an empty store. A nil now means time.Now.
func NewMemory(bounds Bounds, now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{
		bounds: bounds, now: now, wake: make(chan struct{}, 1),
		rides: make(map[string]*kept), subscribed: make(map[string]bool), missed: make(map[string]bool), swept: now(),
	}
}

// Publish implements Store.
func (m *Memory) Publish(_ context.Context, messages []Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, x := range messages {
		m.store(x, now)
		if m.subscribed[x.Ride] {
			m.push(x)
		}
	}
	m.sweep(now)
	return nil
}

func (m *Memory) store(x Message, now time.Time) {
	k := m.rides[x.Ride]
	if k == nil {
		k = &kept{}
		m.rides[x.Ride] = k
	}
	if n := len(k.messages); n > 0 && k.messages[n-1].Sequence >= x.Sequence {
		return
	}
	k.messages, k.last = append(k.messages, x), now
	if over := len(k.messages) - m.bounds.PerRide; over > 0 {
		k.messages = append([]Message(nil), k.messages[over:]...)
	}
}

// push queues a message for Run. The lock is held.
func (m *Memory) push(x Message) {
	if len(m.pending) < maxPending {
		m.pending = append(m.pending, x)
	} else {
		m.missed[x.Ride] = true
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// sweep drops rides whose time is over, from time to time. The lock is held.
func (m *Memory) sweep(now time.Time) {
	if now.Sub(m.swept) < m.bounds.Keep/16 {
		return
	}
	m.swept = now
	for ride, k := range m.rides {
		if now.Sub(k.last) > m.bounds.Keep {
			delete(m.rides, ride)
		}
	}
}

// Since implements Store.
func (m *Memory) Since(_ context.Context, ride string, after int64) ([]Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.rides[ride]
	if k == nil || m.now().Sub(k.last) > m.bounds.Keep {
		return nil, nil
	}
	var since []Message
	for _, x := range k.messages {
		if x.Sequence > after {
			since = append(since, x)
		}
	}
	return since, nil
}

// Subscribe implements Store.
func (m *Memory) Subscribe(_ context.Context, ride string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribed[ride] = true
	m.push(Message{Ride: ride})
	return nil
}

// Unsubscribe implements Store.
func (m *Memory) Unsubscribe(_ context.Context, ride string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.subscribed, ride)
	delete(m.missed, ride)
	return nil
}

// Run implements Store.
func (m *Memory) Run(ctx context.Context, deliver func(Message)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
		pending, missed := m.take()
		for _, x := range pending {
			deliver(x)
		}
		for ride := range missed {
			deliver(Message{Ride: ride})
		}
	}
}

func (m *Memory) take() (pending []Message, missed map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pending, missed = m.pending, m.missed
	m.pending, m.missed = nil, make(map[string]bool)
	return pending, missed
}

// Healthy implements Store.
func (m *Memory) Healthy() bool { return true }

// Shared implements Store.
func (m *Memory) Shared() bool { return false }
