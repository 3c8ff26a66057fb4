package budget

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Rate is what one key may use: so many units a second on average, and what comes
// together in Burst at once.
type Rate struct {
	// PerSecond is 0 for no limit.
	PerSecond float64
	Burst     time.Duration
}

// Meter holds one key to a rate by the virtual scheduling form of the generic cell
// rate algorithm (ITU-T Recommendation I.371). The zero value has used nothing. It
// is safe for concurrent use.
type Meter struct {
	// due is when what was used so far would be finished at exactly the rate, in
	// nanoseconds of a monotonic clock.
	due atomic.Int64
}

// Take uses units at a time of a monotonic clock, or returns how long to wait until
// something may be used. What is asked for at once may be more than is left: the
// next ones wait the longer.
func (m *Meter) Take(units float64, r Rate, now time.Duration) (wait time.Duration, ok bool) {
	if r.PerSecond == 0 || units == 0 {
		return 0, true
	}
	for {
		was := m.due.Load()
		from := max(was, int64(now))
		if wait = time.Duration(from) - now - r.Burst; wait >= 0 && from != int64(now) {
			return max(wait, time.Millisecond), false
		}
		if m.due.CompareAndSwap(was, from+int64(units/r.PerSecond*float64(time.Second))) {
			return 0, true
		}
	}
}

const (
	// meterShards lets keys be looked up at a time.
	meterShards = 16
	// meterSample is how many keys are looked at for one to be forgotten.
	meterSample = 8
)

// Pair are the meters of one key for two kinds of units.
type Pair struct{ First, Second Meter }

func (p *Pair) due() int64 { return max(p.First.due.Load(), p.Second.due.Load()) }

// Meters are those of many keys, of which so many are remembered at most. It is safe
// for concurrent use.
type Meters struct {
	seed   maphash.Seed
	most   int // in each shard
	shards [meterShards]meterShard
}

type meterShard struct {
	mu    sync.RWMutex
	byKey map[string]*Pair
}

// NewMeters returns meters of most keys, rounded up to a multiple of 16.
func NewMeters(most int) *Meters {
	m := &Meters{seed: maphash.MakeSeed(), most: max(1, (most+meterShards-1)/meterShards)}
	for i := range m.shards {
		m.shards[i].byKey = map[string]*Pair{}
	}
	return m
}

// Of returns the meters of a key. When there are too many keys, a few are looked at
// and the one that has used least of late is forgotten: mostly one whose meter is as
// good as new, so that nothing is lost by it.
func (m *Meters) Of(key string) *Pair {
	s := &m.shards[maphash.String(m.seed, key)%meterShards]
	if found := s.find(key); found != nil {
		return found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.byKey[key]; found != nil {
		return found
	}
	if len(s.byKey) >= m.most {
		s.forgetOne()
	}
	made := &Pair{}
	s.byKey[key] = made
	return made
}

func (s *meterShard) find(key string) *Pair {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byKey[key]
}

// forgetOne makes space for a key. A map is walked from a place at random.
func (s *meterShard) forgetOne() {
	var least string
	var due int64
	looked := 0
	for key, m := range s.byKey {
		if d := m.due(); looked == 0 || d < due {
			least, due = key, d
		}
		if looked++; looked == meterSample {
			break
		}
	}
	delete(s.byKey, least)
}

// Len is how many keys are remembered.
func (m *Meters) Len() int {
	n := 0
	for i := range m.shards {
		n += m.shards[i].len()
	}
	return n
}

func (s *meterShard) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byKey)
}
