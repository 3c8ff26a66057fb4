package liveindex

import (
	"sort"
	"sync/atomic"
)

// runMax is how many vehicles a run holds at most.
const runMax = 256

// idOrder keeps the vehicles' numbers in the order of their ids, in runs. Readers
// walk it while the writer changes it: a run never changes but is replaced by
// another, and so is the list of runs when there is one more or less. A reader
// that still holds the list of before finds in it what was there then.
type idOrder struct {
	runs     atomic.Pointer[[]atomic.Pointer[[]uint32]] // none is empty
	vehicles *slab[vehicle]
}

func newIDOrder(vehicles *slab[vehicle]) *idOrder {
	o := &idOrder{vehicles: vehicles}
	o.runs.Store(&[]atomic.Pointer[[]uint32]{})
	return o
}

func (o *idOrder) id(number uint32) string { return o.vehicles.at(number).id() }

// runOf returns the place of the run that holds an id or would: the last that
// does not begin behind it, or the first.
func (o *idOrder) runOf(runs []atomic.Pointer[[]uint32], id string) int {
	i := sort.Search(len(runs), func(i int) bool { return o.id((*runs[i].Load())[0]) > id })
	return max(0, i-1)
}

// in returns the place in a run of the first id that is not below another.
func (o *idOrder) in(run []uint32, id string) int {
	return sort.Search(len(run), func(i int) bool { return o.id(run[i]) >= id })
}

// insert adds a vehicle whose id is not there. It is the writer's.
func (o *idOrder) insert(number uint32) {
	id, runs := o.id(number), *o.runs.Load()
	if len(runs) == 0 {
		o.replace(runs, 0, 0, []uint32{number})
		return
	}
	i := o.runOf(runs, id)
	run := *runs[i].Load()
	at := o.in(run, id)
	if len(run) == runMax && at == runMax && i == len(runs)-1 {
		// Ids that come in order fill their runs.
		o.replace(runs, i+1, 0, []uint32{number})
		return
	}
	fresh := make([]uint32, len(run)+1)
	copy(fresh, run[:at])
	fresh[at] = number
	copy(fresh[at+1:], run[at:])
	if len(fresh) <= runMax {
		runs[i].Store(&fresh)
		return
	}
	half := len(fresh) / 2
	o.replace(runs, i, 1, fresh[:half:half], append([]uint32(nil), fresh[half:]...))
}

// remove takes out a vehicle, which must be there and still have its id. It is
// the writer's.
func (o *idOrder) remove(number uint32) {
	id, runs := o.id(number), *o.runs.Load()
	i := o.runOf(runs, id)
	run := *runs[i].Load()
	at := o.in(run, id)
	fresh := append(append(make([]uint32, 0, len(run)), run[:at]...), run[at+1:]...)
	if len(fresh) == 0 {
		o.replace(runs, i, 1)
		return
	}
	if i+1 < len(runs) {
		if next := *runs[i+1].Load(); len(fresh)+len(next) <= runMax/2 {
			o.replace(runs, i, 2, append(fresh, next...))
			return
		}
	}
	runs[i].Store(&fresh)
}

// replace publishes a list with other runs in place of n from the i-th on.
func (o *idOrder) replace(runs []atomic.Pointer[[]uint32], i, n int, by ...[]uint32) {
	fresh := make([]atomic.Pointer[[]uint32], 0, len(runs)-n+len(by))
	add := func(run *[]uint32) {
		fresh = fresh[:len(fresh)+1]
		fresh[len(fresh)-1].Store(run)
	}
	for k := range i {
		add(runs[k].Load())
	}
	for k := range by {
		add(&by[k])
	}
	for k := i + n; k < len(runs); k++ {
		add(runs[k].Load())
	}
	o.runs.Store(&fresh)
}

// after appends the numbers of the first n vehicles by id whose ids are above
// one. The caller has pinned.
func (o *idOrder) after(id string, n int, dst []uint32) []uint32 {
	runs := *o.runs.Load()
	if len(runs) == 0 {
		return dst
	}
	for i := o.runOf(runs, id); i < len(runs) && len(dst) < n; i++ {
		run := *runs[i].Load()
		at := o.in(run, id)
		if at < len(run) && o.id(run[at]) == id {
			at++
		}
		dst = append(dst, run[at:min(len(run), at+n-len(dst))]...)
	}
	return dst
}
