package liveindex

import "sync/atomic"

const (
	slabBits = 9
	slabLen  = 1 << slabBits
)

// slab numbers values of type T. The writer allocates and frees numbers;
// readers follow a number that they reached through a published entry.
type slab[T any] struct {
	chunks atomic.Pointer[[]*[slabLen]T]
	used   uint32   // numbers handed out so far, free ones included; the writer's
	free   []uint32 // the writer's
}

func (s *slab[T]) at(i uint32) *T {
	return &(*s.chunks.Load())[i>>slabBits][i&(slabLen-1)]
}

// alloc returns a number whose value is as its last user left it.
func (s *slab[T]) alloc() uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i
	}
	if s.used%slabLen == 0 {
		var chunks []*[slabLen]T
		if p := s.chunks.Load(); p != nil {
			chunks = *p
		}
		// Readers hold shorter slices of the same array; what they see of it
		// does not change.
		chunks = append(chunks, new([slabLen]T))
		s.chunks.Store(&chunks)
	}
	s.used++
	return s.used - 1
}

func (s *slab[T]) release(i uint32) { s.free = append(s.free, i) }
