package matcher

import (
	"container/list"
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

// sessions keep what the clients of WatchArea were told, beyond their calls.
type sessions struct {
	seed maphash.Seed

	mu        sync.Mutex
	byID      map[uint64]*session
	lingering list.List // of *session, the oldest first
	vehicles  int       // in the views of those
}

// session is what one client was told of one area, over one call after another.
type session struct {
	id      uint64
	request uint64 // hash of the area and the filter

	// mu is held while the view is used. A call whose turn has passed may not
	// use it any more: another has gone on with the session.
	mu   sync.Mutex
	view *liveindex.View

	// What follows is written under sessions.mu.

	turn  atomic.Uint64
	place *list.Element // in lingering
	held  int           // vehicles, while it lingers
}

func newSessions() *sessions {
	return &sessions{seed: maphash.MakeSeed(), byID: map[uint64]*session{}}
}

// hash tells requests apart by what they watch.
func (s *sessions) hash(req *starlingv1.WatchAreaRequest) uint64 {
	what := &starlingv1.WatchAreaRequest{Area: req.GetArea(), Filter: req.GetFilter()}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(what)
	if err != nil {
		return randomID() // then it is like no other
	}
	return maphash.Bytes(s.seed, b)
}

// open begins a session and returns the caller's turn in it.
func (s *sessions) open(request uint64, view *liveindex.View) (*session, uint64) {
	one := &session{id: randomID(), request: request, view: view}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[one.id] = one
	return one, one.turn.Add(1)
}

// resume takes over the session of a token, if it is kept and watches the same.
// The turn of a call that still has it ends.
func (s *sessions) resume(t areaToken, request uint64) (*session, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byID[t.session]
	if one == nil || one.request != request {
		return nil, 0
	}
	s.unlinger(one)
	return one, one.turn.Add(1)
}

// leave keeps a session for a client that comes back, if the turn was the last.
func (s *sessions) leave(one *session, turn uint64) {
	one.mu.Lock()
	held := one.view.Len()
	one.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.turn.Load() != turn || s.byID[one.id] != one {
		return
	}
	one.held, one.place = held, s.lingering.PushBack(one)
	s.vehicles += held
	for s.vehicles > maxLingering {
		s.forget(s.lingering.Front().Value.(*session))
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

// discard ends a session that nobody shall resume.
func (s *sessions) discard(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(one)
}

// forget ends a session. The caller holds mu.
func (s *sessions) forget(one *session) {
	s.unlinger(one)
	delete(s.byID, one.id)
}

func (s *sessions) unlinger(one *session) {
	if one.place != nil {
		s.lingering.Remove(one.place)
		s.vehicles -= one.held
		one.place, one.held = nil, 0
	}
}
