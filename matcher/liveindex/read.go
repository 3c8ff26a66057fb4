package liveindex

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Get returns the newest state of a vehicle.
func (x *Index) Get(id string) (v Vehicle, ok bool) {
	r, _ := x.pin()
	defer r.unpin()
	s := x.newest(id)
	if s == nil {
		return Vehicle{}, false
	}
	x.read(s, &v)
	return v, true
}

// Page appends to dst the first n vehicles by id whose ids are above after,
// each in its newest state. If there are more, next is the id to go on after,
// else it is empty. A vehicle that is there all the while is on exactly one of
// the pages of one walk; one that comes or goes meanwhile is on one or none.
// It looks at every vehicle's id.
func (x *Index) Page(after string, n int, dst []Vehicle) (page []Vehicle, next string) {
	if n < 1 {
		return dst, ""
	}
	r, _ := x.pin()
	defer r.unpin()
	ids := x.smallestIDs(after, n+1)
	if len(ids) > n {
		ids = ids[:n]
		next = ids[n-1].id
	}
	for _, item := range ids {
		if current := x.vehicles.at(item.number).current.Load(); current != 0 {
			dst = append(dst, Vehicle{})
			x.read(x.states.at(current-1), &dst[len(dst)-1])
		}
	}
	return dst, next
}

type numberedID struct {
	id     string
	number uint32
}

// smallestIDs returns the n smallest ids above after, in order. The caller has
// pinned.
func (x *Index) smallestIDs(after string, n int) []numberedID {
	var ids []numberedID
	below := "" // once set, ids from here on are not among the smallest
	trim := func() {
		slices.SortFunc(ids, func(a, b numberedID) int { return strings.Compare(a.id, b.id) })
		if len(ids) > n {
			clear(ids[n:])
			ids = ids[:n]
			below = ids[n-1].id
		}
	}
	words := *x.ids.words.Load()
	for i := range words {
		low := uint32(atomic.LoadUint64(&words[i]))
		if low < idFirst {
			continue
		}
		id := x.vehicles.at(low - idFirst).id
		if id <= after || below != "" && id >= below {
			continue
		}
		if ids = append(ids, numberedID{id, low - idFirst}); len(ids) >= 2*n {
			trim()
		}
	}
	trim()
	return ids
}
