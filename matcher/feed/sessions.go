package feed

import (
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// areaLinger is how long a session is kept after its call has ended.
	areaLinger = time.Minute
	// maxLingering bounds the vehicles in the views of sessions that wait for
	// their clients, at about 100 bytes each. The oldest go first.
	maxLingering = 1_000_000
)

// Sessions keep what the clients of WatchArea were sent, beyond their calls.
type Sessions struct {
	seed maphash.Seed

	mu        sync.Mutex
	byID      map[uint64]*Session
	lingering list.List // of *Session, the oldest first
	vehicles  int       // in the views of those
}

// Session is what one client was sent of one area, over one call after another.
type Session struct {
	// ID is drawn at random: tokens name it.
	ID      uint64
	request uint64 // Hash of the area and the filter

	// mu is held while the view is used. A call whose turn has passed may not
	// use it any more: another has gone on with the session.
	mu   sync.Mutex
	view *liveindex.View

	// What follows is written under Sessions.mu.

	turn  atomic.Uint64
	place *list.Element // in lingering
	held  int           // vehicles, while it lingers
}

// NewSessions returns no sessions yet.
func NewSessions() *Sessions {
	return &Sessions{seed: maphash.MakeSeed(), byID: map[uint64]*Session{}}
}

// Hash distinguishes requests by what they watch.
func (s *Sessions) Hash(req *starlingv1.WatchAreaRequest) uint64 {
	what := &starlingv1.WatchAreaRequest{Area: req.GetArea(), Filter: req.GetFilter()}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(what)
	if err != nil {
		return randomID() // then it is like no other
	}
	return maphash.Bytes(s.seed, b)
}

// Open begins a session and returns the caller's turn in it.
func (s *Sessions) Open(request uint64, view *liveindex.View) (*Session, uint64) {
	one := &Session{ID: randomID(), request: request, view: view}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[one.ID] = one
	return one, one.turn.Add(1)
}

// Resume takes over the session of a token, if it is kept and watches the same.
// The turn of a call that still has it ends.
func (s *Sessions) Resume(id, request uint64) (*Session, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byID[id]
	if one == nil || one.request != request {
		return nil, 0
	}
	s.unlinger(one)
	return one, one.turn.Add(1)
}

// Leave keeps a session for a client that comes back, if the turn was the last.
func (s *Sessions) Leave(one *Session, turn uint64) {
	one.mu.Lock()
	held := one.view.Len()
	one.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.turn.Load() != turn || s.byID[one.ID] != one {
		return
	}
	one.held, one.place = held, s.lingering.PushBack(one)
	s.vehicles += held
	for s.vehicles > maxLingering {
		s.forget(s.lingering.Front().Value.(*Session))
	}
	place := one.place
	time.AfterFunc(areaLinger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if place != nil && one.place == place {
			s.forget(one)
		}
	})
}

// Discard ends a session that nobody shall resume.
func (s *Sessions) Discard(one *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(one)
}

// forget ends a session. The caller holds mu.
func (s *Sessions) forget(one *Session) {
	s.unlinger(one)
	delete(s.byID, one.ID)
}

func (s *Sessions) unlinger(one *Session) {
	if one.place != nil {
		s.lingering.Remove(one.place)
		s.vehicles -= one.held
		one.place, one.held = nil, 0
	}
}

// Use calls fn with the session's view, unless another call has taken the
// session over since the turn: then it is false.
func (one *Session) Use(turn uint64, fn func(*liveindex.View)) bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.turn.Load() != turn {
		return false
	}
	fn(one.view)
	return true
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
