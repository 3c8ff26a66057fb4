package budget

import "sync"

// Shares are places of which every owner may have some. It is safe for concurrent
// use. An owner without a place takes no memory.
type Shares[K comparable] struct {
	most int

	mu    sync.Mutex
	taken int
	by    map[K]int
}

// NewShares returns so many places.
func NewShares[K comparable](most int) *Shares[K] { return &Shares[K]{most: most, by: make(map[K]int)} }

// Take takes a place for an owner, who may have so many at most. There is none for it
// if all are taken (full), or if it has as many as it may (over).
func (s *Shares[K]) Take(owner K, most int) (full, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full, over = s.taken >= s.most, s.by[owner] >= most
	if !full && !over {
		s.taken++
		s.by[owner]++
	}
	return full, over
}

// Release gives a place of an owner back.
func (s *Shares[K]) Release(owner K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[owner]--; s.by[owner] == 0 {
		delete(s.by, owner)
	}
}
