package reserve

import (
	"slices"

	"github.com/starling-fleet/starling/schemas/wire"
)

// MaxParts bounds how many parts one restatement may have.
const MaxParts = 1024

// Assertions is which partitions of `rides` have restated their promises to one
// partition of `locations` in the present epoch. The zero value has none.
type Assertions struct {
	// complete are the partitions of `rides` whose promises count, ascending.
	complete []int32
	// pending are the parts of those that are not complete.
	pending []pending
}

// pending are the parts of one generation of one partition of `rides`.
type pending struct {
	ridesPartition int32
	generation     int64
	parts          int32
	got            []part
}

type part struct {
	number   int32
	promises []wire.Promise
}

// Ready returns whether all of so many partitions of `rides` have restated what
// they promised: until then nothing is granted.
func (a *Assertions) Ready(partitions int32) bool { return len(a.complete) == int(partitions) }

// Missing returns how many of so many partitions of `rides` have not.
func (a *Assertions) Missing(partitions int32) int { return int(partitions) - len(a.complete) }

// Add takes one record and returns the promises that count from now on, once
// the set is complete. The first complete set of a partition of `rides` counts;
// one of another epoch, of a partition that there is not, or with numbers that
// make no sense is ignored.
func (a *Assertions) Add(r *wire.Reasserted, epoch int64, partitions int32) []wire.Promise {
	if r.Epoch != epoch || r.RidesPartition < 0 || r.RidesPartition >= partitions ||
		r.Parts < 1 || r.Parts > MaxParts || r.Part < 0 || r.Part >= r.Parts {
		return nil
	}
	at, done := slices.BinarySearch(a.complete, r.RidesPartition)
	if done {
		return nil
	}
	i := a.collect(r)
	if i < 0 || len(a.pending[i].got) < int(r.Parts) {
		return nil
	}
	var promises []wire.Promise
	for _, p := range a.pending[i].got {
		promises = append(promises, p.promises...)
	}
	a.pending = slices.Delete(a.pending, i, i+1)
	a.complete = slices.Insert(a.complete, at, r.RidesPartition)
	return promises
}

// collect puts a part where it belongs and returns the index of its set, or -1
// when a newer generation is being collected. Parts of an older generation give
// way: their owner was replaced.
func (a *Assertions) collect(r *wire.Reasserted) int {
	i := slices.IndexFunc(a.pending, func(p pending) bool { return p.ridesPartition == r.RidesPartition })
	if i >= 0 && a.pending[i].generation > r.Generation {
		return -1
	}
	fresh := pending{ridesPartition: r.RidesPartition, generation: r.Generation, parts: r.Parts}
	switch {
	case i < 0:
		i, _ = slices.BinarySearchFunc(a.pending, r.RidesPartition, func(p pending, n int32) int { return int(p.ridesPartition - n) })
		a.pending = slices.Insert(a.pending, i, fresh)
	case a.pending[i].generation < r.Generation, a.pending[i].parts != r.Parts:
		a.pending[i] = fresh
	}
	p := &a.pending[i]
	at, there := slices.BinarySearchFunc(p.got, r.Part, func(p part, n int32) int { return int(p.number - n) })
	if !there {
		p.got = slices.Insert(p.got, at, part{r.Part, slices.Clone(r.Promises)})
	}
	return i
}
