package liveindex

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// idTable finds a vehicle's number by its id: open addressing with linear
// probing over words of 32 hash bits and 32 bits of number. Readers search it
// while the writer changes it; a table that fills up is replaced as a whole.
type idTable struct {
	seed  maphash.Seed
	words atomic.Pointer[[]uint64] // each word read and written atomically
	// The writer's:
	live, tombstones int
}

const (
	idEmpty     = 0
	idTombstone = 1 // was deleted: searches go on behind it
	idFirst     = 2 // word's low half of vehicle number 0
)

func newIDTable() *idTable {
	t := &idTable{seed: maphash.MakeSeed()}
	words := make([]uint64, 64)
	t.words.Store(&words)
	return t
}

// find returns the number of a vehicle, or false. Its place in the table comes
// along for the writer.
func (t *idTable) find(id string, vehicles *slab[vehicle]) (number uint32, place int, ok bool) {
	words := *t.words.Load()
	hash := maphash.String(t.seed, id)
	for i := home(hash, len(words)); ; {
		w := atomic.LoadUint64(&words[i])
		switch low := uint32(w); {
		case low == idEmpty:
			return 0, 0, false
		case low != idTombstone && w>>32 == hash>>32 && vehicles.at(low-idFirst).id() == id:
			return low - idFirst, i, true
		}
		if i++; i == len(words) {
			i = 0
		}
	}
}

// home maps the low half of a hash onto a table of any size.
func home(hash uint64, size int) int {
	hi, _ := bits.Mul64(hash<<32, uint64(size))
	return int(hi)
}

// insert adds an id that is not in the table. The vehicle's id must be set.
func (t *idTable) insert(id string, number uint32, vehicles *slab[vehicle]) {
	if words := *t.words.Load(); (t.live+t.tombstones+1)*5 > len(words)*4 {
		t.rebuild(max(64, (t.live+1)*3/2), vehicles)
	}
	t.put(*t.words.Load(), maphash.String(t.seed, id), number)
	t.live++
}

func (t *idTable) put(words []uint64, hash uint64, number uint32) {
	i := home(hash, len(words))
	for uint32(atomic.LoadUint64(&words[i])) != idEmpty {
		if i++; i == len(words) {
			i = 0
		}
	}
	atomic.StoreUint64(&words[i], hash>>32<<32|uint64(number+idFirst))
}

// rebuild replaces the table by one of the given size without tombstones. Readers
// that still search the old one find in it what was there when they began.
func (t *idTable) rebuild(size int, vehicles *slab[vehicle]) {
	fresh := make([]uint64, size)
	for _, w := range *t.words.Load() {
		if low := uint32(w); low >= idFirst {
			t.put(fresh, maphash.String(t.seed, vehicles.at(low-idFirst).id()), low-idFirst)
		}
	}
	t.tombstones = 0
	t.words.Store(&fresh)
}

// remove deletes the id at a place that find returned.
func (t *idTable) remove(place int) {
	atomic.StoreUint64(&(*t.words.Load())[place], idTombstone)
	t.live--
	t.tombstones++
}
