package liveindex

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
)

// Announcements of a reader seat. Versions start above them.
const (
	seatFree    = 0
	seatPinning = 1
	firstPinned = 2
)

// seat is a reader's place: it announces the version that the reader looks at
// and lends it its scratch memory.
type seat struct {
	announced atomic.Uint64
	_         [56]byte // keep announcements of different seats off one cache line
	scratch   searchScratch
}

// seats are all reader places. There are as many as readers were ever at work
// at once.
type seats struct {
	mu  sync.Mutex // guards growing all
	all atomic.Pointer[[]*seat]
}

func newSeats() *seats {
	s := &seats{}
	all := make([]*seat, 4*runtime.GOMAXPROCS(0))
	for i := range all {
		all[i] = &seat{}
	}
	s.all.Store(&all)
	return s
}

// take claims a free seat in state seatPinning.
func (s *seats) take() *seat {
	all := *s.all.Load()
	start := int(rand.Uint32N(uint32(len(all))))
	for i := range all {
		r := all[(start+i)%len(all)]
		if r.announced.Load() == seatFree && r.announced.CompareAndSwap(seatFree, seatPinning) {
			return r
		}
	}
	r := &seat{}
	r.announced.Store(seatPinning)
	s.mu.Lock()
	defer s.mu.Unlock()
	grown := append(append([]*seat(nil), *s.all.Load()...), r)
	s.all.Store(&grown)
	return r
}

// oldest returns the smallest version that a reader may be looking at, which is
// published if there is none; 0 if a reader is about to choose.
func (s *seats) oldest(published uint64) uint64 {
	for _, r := range *s.all.Load() {
		switch a := r.announced.Load(); a {
		case seatFree:
		case seatPinning:
			return 0
		default:
			published = min(published, a)
		}
	}
	return published
}

// pin announces a reader and returns its seat and the version that it sees.
// Whatever that version reaches stays as it is until unpin.
func (x *Index) pin() (*seat, uint64) {
	r := x.seats.take()
	version := x.version.Load()
	r.announced.Store(version)
	return r, version
}

func (r *seat) unpin() { r.announced.Store(seatFree) }
