package zone

import (
	"cmp"
	"slices"
)

// Presence is a vehicle that was found inside a zone.
type Presence struct {
	Vehicle string
	// SeenMS is when the log took its newest report.
	SeenMS int64
	// MayJoin: it waits for a ride. Stays: it need not give up its place, as one
	// does that carries a rider or takes no rides.
	MayJoin, Stays bool
}

// Leave is a vehicle that has to leave a queue.
type Leave struct {
	Vehicle string
	// Reason is in upper snake case, for programs.
	Reason string
}

// Reasons of Leave.
const (
	// LeftZone: it was outside for longer than the grace, or could not be seen.
	LeftZone = "LEFT_ZONE"
	// NotWaiting: it carries a rider, or takes no rides.
	NotWaiting = "NOT_WAITING"
	// NotDeclared: the zone is no more.
	NotDeclared = "NOT_DECLARED"
)

// Rank decides who joins and leaves one zone's queue. It remembers since when a
// vehicle was not seen inside, so that a fix that jumps over the border costs no
// place. A new owner has a new one, which gives everybody a new grace. It is not
// safe for concurrent use.
type Rank struct {
	graceMS int64
	missed  map[string]int64 // since when, in milliseconds
}

// NewRank returns a rank whose vehicles may be outside for a grace.
func NewRank(graceMS int64) *Rank { return &Rank{graceMS: graceMS, missed: map[string]int64{}} }

// Decide returns who joins, in order, and who leaves, given the queue in its order
// and all who are inside. Times are of the owner's clock.
func (r *Rank) Decide(nowMS int64, queue []string, inside []Presence) (joins []string, leaves []Leave) {
	here := make(map[string]Presence, len(inside))
	for _, p := range inside {
		here[p.Vehicle] = p
	}
	queued := make(map[string]bool, len(queue))
	missed := make(map[string]int64)
	for _, v := range queue {
		queued[v] = true
		p, is := here[v]
		switch {
		case is && !p.Stays:
			leaves = append(leaves, Leave{v, NotWaiting})
		case !is:
			since, was := r.missed[v]
			if !was {
				since = nowMS
			}
			missed[v] = since
			if nowMS-since >= r.graceMS {
				leaves = append(leaves, Leave{v, LeftZone})
			}
		}
	}
	r.missed = missed
	slices.SortFunc(inside, func(a, b Presence) int {
		return cmp.Or(cmp.Compare(a.SeenMS, b.SeenMS), cmp.Compare(a.Vehicle, b.Vehicle))
	})
	for _, p := range inside {
		if p.MayJoin && !queued[p.Vehicle] {
			joins = append(joins, p.Vehicle)
		}
	}
	return joins, leaves
}
