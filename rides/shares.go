package rides

import "sync"

// shares are places of which every caller may have a part. It is safe for
// concurrent use. A caller without a place takes no memory.
type shares struct {
	most, each int

	mu    sync.Mutex
	taken int
	by    map[string]int
}

func newShares(most int, share float64) *shares {
	return &shares{most: most, each: max(1, int(float64(most)*share)), by: make(map[string]int)}
}

// take takes a place for a caller, who may have so many at most beside its share. When
// it fails, full is whether nobody gets one.
func (s *shares) take(who string, most int) (full, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.most {
		return true, false
	}
	if s.by[who] >= min(s.each, most) {
		return false, false
	}
	s.taken++
	s.by[who]++
	return false, true
}

func (s *shares) giveBack(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[who]--; s.by[who] == 0 {
		delete(s.by, who)
	}
}
