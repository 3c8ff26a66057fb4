package rides

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/rides/match"
)

// roundsShare bounds what matching takes: a round begins when so many times the
// duration of the one before it have passed.
const roundsShare = 4

// maxMatched is how many rides one round looks at, the oldest.
const maxMatched = 2000

// desk matches the rides of all partitions that the process owns, so that they
// are assigned together and never ask for one vehicle at once. Each partition's
// loop posts what waits and takes what is proposed; whoever comes when a round may
// begin runs it for all.
type desk struct {
	now func() time.Time
	// askedFor is how long a vehicle is not proposed again after it was: its grant
	// shows in the index meanwhile, or somebody else had it. Each time that it has
	// refused the pause is twice as long, up to maxAskedFor times: a tracker
	// remembers so many decisions of a vehicle and refuses all beyond them.
	askedFor time.Duration

	mu      sync.Mutex
	matcher match.Matcher
	posted  map[int32][]post
	// proposed is what partitions have not taken yet.
	proposed map[int32][]proposal
	asked    map[string]asked
	next     time.Time // no round before
}

// asked is a vehicle that was proposed: it is not again before until, and is
// forgotten when the pause has passed once more.
type asked struct {
	until time.Time
	pause time.Duration
}

// maxAskedFor bounds the pause after refusals, in times of askedFor.
const maxAskedFor = 4

// post is a ride that waits, with the vehicles that may take it, best first.
type post struct {
	request  match.Request
	vehicles []match.Candidate
}

// proposal is a vehicle for a ride.
type proposal struct{ ride, vehicle string }

func newDesk(m match.Matcher, askedFor time.Duration, now func() time.Time) *desk {
	return &desk{now: now, askedFor: askedFor, matcher: m, posted: make(map[int32][]post), proposed: make(map[int32][]proposal), asked: make(map[string]asked)}
}

// match replaces what waits in a partition and returns what is proposed to its
// rides; took is how long a round took that proposed something, otherwise 0.
func (d *desk) match(n int32, posts []post) (out []proposal, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out = d.proposed[n]
	delete(d.proposed, n)
	d.posted[n] = slices.DeleteFunc(posts, func(p post) bool {
		return slices.ContainsFunc(out, func(taken proposal) bool { return taken.ride == p.request.ID })
	})
	begun := d.now()
	// A clock that was set back does not stop it.
	if wait := d.next.Sub(begun); wait > 0 && wait < time.Minute {
		return out, 0
	}
	some := d.round(begun)
	took = d.now().Sub(begun)
	d.next = begun.Add(took * roundsShare)
	out = append(out, d.proposed[n]...)
	delete(d.proposed, n)
	if !some {
		took = 0
	}
	return out, took
}

// leave forgets a partition that is not owned any more.
func (d *desk) leave(n int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.posted, n)
	delete(d.proposed, n)
}

// refused notes that a vehicle that was proposed has not been granted.
func (d *desk) refused(vehicle string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, ok := d.asked[vehicle]; ok {
		pause := min(2*a.pause, maxAskedFor*d.askedFor)
		d.asked[vehicle] = asked{d.now().Add(pause), pause}
	}
}

// dropped notes that a vehicle was not asked after all: others may have it at once.
func (d *desk) dropped(vehicle string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, ok := d.asked[vehicle]; ok {
		d.asked[vehicle] = asked{d.now(), a.pause}
	}
}

// round matches what waits everywhere and returns whether it has proposed
// something. The lock is held.
func (d *desk) round(now time.Time) (some bool) {
	for vehicle, a := range d.asked {
		if left := a.until.Sub(now); left <= -a.pause || left > a.pause {
			delete(d.asked, vehicle)
		}
	}
	type waiting struct {
		post
		partition int32
	}
	var all []waiting
	for n, posts := range d.posted {
		for _, p := range posts {
			all = append(all, waiting{p, n})
		}
	}
	slices.SortFunc(all, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(a.request.RequestedMS, b.request.RequestedMS), strings.Compare(a.request.ID, b.request.ID))
	})
	all = all[:min(len(all), maxMatched)]
	requests := make([]match.Request, len(all))
	for i := range all {
		requests[i] = all[i].request
	}
	var free []match.Candidate
	search := func(i, most int) []match.Candidate {
		free = free[:0]
		for _, c := range all[i].vehicles {
			if a, ok := d.asked[c.Vehicle]; (!ok || !now.Before(a.until)) && len(free) < most {
				free = append(free, c)
			}
		}
		return free
	}
	chosen := d.matcher.Match(now.UnixMilli(), requests, search)
	for _, p := range chosen {
		w := all[p.Request]
		if d.askedFor > 0 {
			pause := max(d.askedFor, d.asked[p.Vehicle].pause)
			d.asked[p.Vehicle] = asked{now.Add(pause), pause}
		}
		d.proposed[w.partition] = append(d.proposed[w.partition], proposal{w.request.ID, p.Vehicle})
		d.posted[w.partition] = slices.DeleteFunc(d.posted[w.partition], func(o post) bool { return o.request.ID == w.request.ID })
	}
	return len(chosen) > 0
}

// partitionAt returns the partition of the rides that begin at a place, in
// degrees. Rides of one region, an H3 cell, are in one partition: one owner
// matches them together, and owners fight for vehicles at borders only. The name
// of a ride keeps its partition, so that the resolution may be changed.
func (r *Rides) partitionAt(latDeg, lonDeg float64) (int32, error) {
	region, err := h3.At(latDeg, lonDeg, r.cfg.RegionResolution)
	if err != nil {
		return 0, fmt.Errorf("region of a pickup: %w", err)
	}
	return eventlog.PartitionOf([]byte(region.String()), r.log.Partitions()), nil
}
