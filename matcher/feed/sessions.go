package feed

import (
	"container/list"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/matcher/randid"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// areaLinger is how long a session is kept after its call has ended.
	areaLinger = time.Minute
	// sessionBytes is what a session is charged with besides its area and the
	// vehicles that its client was sent.
	sessionBytes = 4 << 10
	// chargeStep is the least change of what a session holds that is accounted for.
	chargeStep = 16 << 10
)

// Sessions keep what the clients of WatchArea were sent, beyond their calls, within
// a budget. When it is used up, those that wait for their clients go, the oldest
// first; then no more are opened.
type Sessions struct {
	seed  maphash.Seed
	limit int64 // bytes

	mu        sync.Mutex
	byID      map[uint64]*Session
	lingering list.List   // of *Session, the oldest first
	sweeper   *time.Timer // set for the oldest; nil when none lingers
	used      int64       // bytes
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

	turn    atomic.Uint64
	place   *list.Element // in lingering
	left    time.Time     // when it began to linger
	charged int64         // bytes
}

// NewSessions returns no sessions yet, which may take so many bytes.
func NewSessions(limit int64) *Sessions {
	return &Sessions{seed: maphash.MakeSeed(), limit: limit, byID: map[uint64]*Session{}}
}

// Hash distinguishes requests by what they watch.
func (s *Sessions) Hash(req *starlingv1.WatchAreaRequest) uint64 {
	what := &starlingv1.WatchAreaRequest{Area: req.GetArea(), Filter: req.GetFilter()}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(what)
	if err != nil {
		return randid.New() // then it is like no other
	}
	return maphash.Bytes(s.seed, b)
}

// Open begins a session and returns the caller's turn in it, or nil when the
// budget is used up.
func (s *Sessions) Open(request uint64, view *liveindex.View) (*Session, uint64) {
	one := &Session{ID: randid.New(), request: request, view: view}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[one.ID] = one
	if !s.charge(one, view.Bytes()) {
		s.forget(one)
		return nil, 0
	}
	return one, one.turn.Add(1)
}

// charge accounts for what a session holds, if need be by forgetting others. It is
// false when even that does not make space. The caller holds mu.
func (s *Sessions) charge(one *Session, viewBytes int64) bool {
	bytes := sessionBytes + viewBytes
	s.used += bytes - one.charged
	one.charged = bytes
	for oldest := s.lingering.Front(); s.used > s.limit && oldest != nil; oldest = s.lingering.Front() {
		s.forget(oldest.Value.(*Session))
	}
	return s.used <= s.limit
}

// Used is what all sessions hold, in bytes.
func (s *Sessions) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Lingering is how many sessions wait for their clients.
func (s *Sessions) Lingering() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.lingering.Len())
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
	s.removeLingering(one)
	return one, one.turn.Add(1)
}

func (s *Session) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.Bytes()
}

// Leave keeps a session for a client that comes back, if the turn was the last.
func (s *Sessions) Leave(one *Session, turn uint64) {
	bytes := one.bytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.turn.Load() != turn || s.byID[one.ID] != one {
		return
	}
	one.left, one.place = time.Now(), s.lingering.PushBack(one)
	s.charge(one, bytes)
	if s.sweeper == nil && s.lingering.Len() > 0 {
		s.sweeper = time.AfterFunc(areaLinger, s.sweep)
	}
}

// sweep forgets the sessions whose clients have not come back in time. There is
// one timer for all of them.
func (s *Sessions) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeper = nil
	for oldest := s.lingering.Front(); oldest != nil; oldest = s.lingering.Front() {
		one := oldest.Value.(*Session)
		if wait := areaLinger - time.Since(one.left); wait > 0 {
			s.sweeper = time.AfterFunc(wait, s.sweep)
			return
		}
		s.forget(one)
	}
}

// Discard ends a session that nobody shall resume.
func (s *Sessions) Discard(one *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(one)
}

// forget ends a session. The caller holds mu.
func (s *Sessions) forget(one *Session) {
	s.removeLingering(one)
	if s.byID[one.ID] == one {
		delete(s.byID, one.ID)
		s.used -= one.charged
		one.charged = 0
	}
}

func (s *Sessions) removeLingering(one *Session) {
	if one.place != nil {
		s.lingering.Remove(one.place)
		one.place = nil
	}
}

// Use calls fn with the session's view. Resumed means that another call has taken
// the session over since the turn, and full that the budget of all is used up.
func (s *Sessions) Use(one *Session, turn uint64, fn func(*liveindex.View)) (resumed, full bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.turn.Load() != turn {
		return true, false
	}
	before := one.view.Bytes()
	fn(one.view)
	if after := one.view.Bytes(); after/chargeStep != before/chargeStep {
		s.mu.Lock()
		defer s.mu.Unlock()
		return false, s.byID[one.ID] == one && !s.charge(one, after)
	}
	return false, false
}
