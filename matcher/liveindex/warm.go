package liveindex

import (
	"hash/maphash"
	"sync/atomic"
)

// warmMax is how many vehicles Warm looks at in one go. What they need is about
// ten cache lines each, which together fit the first-level cache.
const warmMax = 32

// Warm brings into the processor's cache what Upserts of these vehicles are
// about to touch. It changes nothing and may be left out. An Upsert goes from
// table to vehicle to state to leaf to entry, and in a large fleet waits for
// memory at every step; Warm takes each step for all of the ids before the
// next, so that the processor waits for many at a time.
func (x *Index) Warm(ids [][]byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(ids) > 0 {
		n := min(len(ids), warmMax)
		x.warm(ids[:n])
		ids = ids[n:]
	}
}

func (x *Index) warm(ids [][]byte) {
	var hashes [warmMax]uint64
	var places, numbers [warmMax]uint32
	words := *x.ids.words.Load()
	for i, id := range ids {
		hashes[i] = maphash.Bytes(x.ids.seed, id)
		places[i] = uint32(home(hashes[i], len(words)))
	}
	// A wrong guess, where another id has the same 32 bits, costs nothing but
	// the time.
	n := 0
	for i := range ids {
		for place, end := int(places[i]), len(words); place < end; place++ {
			w := atomic.LoadUint64(&words[place])
			if low := uint32(w); low >= idFirst && w>>32 == hashes[i]>>32 {
				numbers[n] = low - idFirst
				n++
				break
			} else if low == idEmpty {
				break
			}
		}
	}
	x.warmNumbers(numbers[:n])
}

func (x *Index) warmNumbers(numbers []uint32) {
	var states [warmMax]uint32
	var leaves [warmMax]*node
	var touched uint64
	for i, number := range numbers {
		v := x.vehicles.at(number)
		states[i] = v.current.Load() - 1
		touched += uint64(*v.first)
	}
	for i := range numbers {
		s := x.states.at(states[i])
		if s.has&hasPosition != 0 {
			leaves[i] = x.tree.leaves[s.leaf]
		}
		touched += s.born + uint64(s.leaf) // a state stands on two cache lines
	}
	for i := range numbers {
		if n := leaves[i]; n != nil {
			touched += uint64(n.freeHead) + uint64(n.level)
		}
	}
	for i := range numbers {
		if n := leaves[i]; n != nil {
			touched += n.entries[x.states.at(states[i]).place].death
			if n.freeHead != 0 {
				touched += uint64(n.entries[n.freeHead-1].state)
			}
		}
	}
	x.touched = touched
}
