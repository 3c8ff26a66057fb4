package budget

import (
	"hash/maphash"
	"math/bits"
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

// meterWindow is how many places of the table a key may stand in, and how many keys
// are looked at for one to be forgotten.
const meterWindow = 16

// Pair are the meters of one key for two kinds of units.
type Pair struct {
	First, Second Meter
	hash          uint64 // of the key
}

func (p *Pair) due() int64 { return max(p.First.due.Load(), p.Second.due.Load()) }

// Meters are those of many keys, of which so many are remembered at most. It is safe
// for concurrent use.
//
// A look-up takes no lock and touches one line of the table and the meters: reports of
// many vehicles in turn find nothing in the processor's caches. A key is known by its
// hash of 64 bits with a seed of this process; of a million keys two share meters once
// in ten million processes.
type Meters struct {
	seed  maphash.Seed
	most  int
	table []atomic.Pointer[Pair] // a power of two long, at least twice most

	adding sync.Mutex // held while keys come and go
	count  int
}

// NewMeters returns meters of most keys.
func NewMeters(most int) *Meters {
	most = max(1, most)
	size := 1 << bits.Len(uint(max(2*most, meterWindow)-1))
	return &Meters{seed: maphash.MakeSeed(), most: most, table: make([]atomic.Pointer[Pair], size)}
}

// at is the ith place from that of a hash on.
func (m *Meters) at(hash uint64, i int) *atomic.Pointer[Pair] {
	return &m.table[(hash+uint64(i))&uint64(len(m.table)-1)]
}

// Of returns the meters of a key. When there are too many keys, a few are looked at
// and the one that has used least of late is forgotten: mostly one whose meter is as
// good as new, so that nothing is lost by it.
func (m *Meters) Of(key string) *Pair {
	hash := maphash.String(m.seed, key)
	if found := m.find(hash); found != nil {
		return found
	}
	m.adding.Lock()
	defer m.adding.Unlock()
	if found := m.find(hash); found != nil {
		return found
	}
	free := m.free(hash)
	if free == nil || m.count >= m.most {
		m.forgetOne(hash)
		free = m.free(hash)
	}
	made := &Pair{hash: hash}
	free.Store(made)
	m.count++
	return made
}

func (m *Meters) find(hash uint64) *Pair {
	for i := range meterWindow {
		if p := m.at(hash, i).Load(); p != nil && p.hash == hash {
			return p
		}
	}
	return nil
}

// free is the first free place for a hash, nil if there is none.
func (m *Meters) free(hash uint64) *atomic.Pointer[Pair] {
	for i := range meterWindow {
		if place := m.at(hash, i); place.Load() == nil {
			return place
		}
	}
	return nil
}

// forgetOne makes space for a hash: of the next keys from its place on, which are all
// that stand in its window when that is full, the one that has used least goes.
func (m *Meters) forgetOne(hash uint64) {
	var least *atomic.Pointer[Pair]
	var due int64
	for i, looked := 0, 0; i < len(m.table) && looked < meterWindow; i++ {
		place := m.at(hash, i)
		p := place.Load()
		if p == nil {
			continue
		}
		if d := p.due(); looked == 0 || d < due {
			least, due = place, d
		}
		looked++
	}
	least.Store(nil)
	m.count--
}

// Len is how many keys are remembered.
func (m *Meters) Len() int {
	m.adding.Lock()
	defer m.adding.Unlock()
	return m.count
}
