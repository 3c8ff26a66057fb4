package liveindex

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
)

// Announcements of a reader slot. Versions start above them.
const (
	slotFree    = 0
	slotPinning = 1
	firstPinned = 2
)

// readerSlot is a reader's: it announces the version that the reader looks at
// and lends it its scratch memory.
type readerSlot struct {
	announced atomic.Uint64
	_         [56]byte // keep announcements of different slots off one cache line
	scratch   searchScratch
}

// readerSlots are all of these. There are as many as readers were ever at work
// at once.
type readerSlots struct {
	mu  sync.Mutex // guards growing all
	all atomic.Pointer[[]*readerSlot]
}

func newReaderSlots() *readerSlots {
	s := &readerSlots{}
	all := make([]*readerSlot, 4*runtime.GOMAXPROCS(0))
	for i := range all {
		all[i] = &readerSlot{}
	}
	s.all.Store(&all)
	return s
}

// take claims a free slot in state slotPinning.
func (s *readerSlots) take() *readerSlot {
	all := *s.all.Load()
	start := int(rand.Uint32N(uint32(len(all))))
	for i := range all {
		r := all[(start+i)%len(all)]
		if r.announced.Load() == slotFree && r.announced.CompareAndSwap(slotFree, slotPinning) {
			return r
		}
	}
	r := &readerSlot{}
	r.announced.Store(slotPinning)
	s.mu.Lock()
	defer s.mu.Unlock()
	grown := append(append([]*readerSlot(nil), *s.all.Load()...), r)
	s.all.Store(&grown)
	return r
}

// oldest returns the smallest version that a reader may be looking at, which is
// published if there is none; 0 if a reader is about to choose.
func (s *readerSlots) oldest(published uint64) uint64 {
	for _, r := range *s.all.Load() {
		switch a := r.announced.Load(); a {
		case slotFree:
		case slotPinning:
			return 0
		default:
			published = min(published, a)
		}
	}
	return published
}

// pin announces a reader and returns its slot and the version that it sees.
// Whatever that version reaches stays as it is until unpin.
func (x *Index) pin() (*readerSlot, uint64) {
	r := x.slots.take()
	version := x.version.Load()
	r.announced.Store(version)
	return r, version
}

func (r *readerSlot) unpin() { r.announced.Store(slotFree) }
