package locallog

import (
	"slices"
	"sort"
	"sync"

	"github.com/starling-fleet/starling/internal/locallog/ends"
	"github.com/starling-fleet/starling/internal/locallog/layout"
)

// segments is the index of the record store: which offsets begin where.
type segments struct {
	sync.RWMutex
	all []segment // oldest first; the last is being written
	// written and startedMS are the committer's, of the last segment.
	written   int64
	startedMS int64
}

// segment is a stretch of the record store.
type segment struct {
	layout.Segment
	swept []bool // by place: its records here were deleted; Log.retaining guards it
}

func (s *segments) last() (segment, bool) {
	s.RLock()
	defer s.RUnlock()
	if len(s.all) == 0 {
		return segment{}, false
	}
	return s.all[len(s.all)-1], true
}

// holding returns the numbers of the segments that may hold records of a
// partition from an offset on, oldest first. The index is that of the
// partition among all.
func (s *segments) holding(index int, from int64) (first, last uint64, ok bool) {
	s.RLock()
	defer s.RUnlock()
	after := sort.Search(len(s.all), func(i int) bool { return s.all[i].Starts[index].Next > from })
	if after == 0 {
		return 0, 0, false
	}
	return s.all[after-1].Number, s.all[len(s.all)-1].Number, true
}

// behind returns the number of the segment behind the one with a number; retention
// may have taken some in between.
func (s *segments) behind(number uint64) (next uint64, ok bool) {
	s.RLock()
	defer s.RUnlock()
	i := sort.Search(len(s.all), func(i int) bool { return s.all[i].Number > number })
	if i == len(s.all) {
		return 0, false
	}
	return s.all[i].Number, true
}

// gaps are the offsets that a repair has declared lost, by place; each list is
// in order. They never change while the log is open.
type gaps map[int][]ends.Gap

func (g *gaps) load(f ends.Facts) {
	*g = make(gaps)
	for _, gap := range f.Gaps {
		index := int(gap.Topic-1)*f.Partitions + int(gap.Partition)
		(*g)[index] = append((*g)[index], gap)
	}
	for _, list := range *g {
		slices.SortFunc(list, func(a, b ends.Gap) int { return int(a.From - b.From) })
	}
}

// skip returns the offset, or the one behind the gap that it lies in.
func (g gaps) skip(index int, offset int64) int64 {
	for _, gap := range g[index] {
		if gap.From <= offset && offset < gap.To {
			offset = gap.To
		}
	}
	return offset
}

// back returns the offset, or the one at which the gap before it begins.
func (g gaps) back(index int, offset int64) int64 {
	for _, gap := range slices.Backward(g[index]) {
		if gap.To == offset {
			offset = gap.From
		}
	}
	return offset
}
