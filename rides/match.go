package rides

import (
	"context"
	"slices"
	"time"

	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/match"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// searchAge is how old the candidates of a ride may be that still waits.
const searchAge = 500 * time.Millisecond

// estimateTime is how long a partition waits for estimates of travel times before
// the rides that are left are ranked by distance.
const estimateTime = time.Second

// search is what was last found for a ride that waits.
type search struct {
	at       time.Time
	vehicles []match.Candidate
}

// match posts the rides that wait for a vehicle, and proposes what was chosen for
// them.
func (p *partition) match(ctx context.Context) {
	began := p.role.now()
	p.matchQueues()
	waiting := p.owner.Searching()
	proposals, took := p.role.desk.match(p.number, p.posts(ctx, waiting))
	if took > 0 {
		p.role.metrics.round.Observe(took.Seconds())
	}
	for _, c := range proposals {
		ride := p.owner.State().Ride(c.ride)
		if ride == nil || !p.mayTake(c.vehicle, ride) || !p.owner.Propose(c.ride, c.vehicle) {
			delete(p.searches, c.ride) // it has been taken since, or has gone
			if p.owner.MayAsk(c.vehicle) {
				p.role.desk.dropped(c.vehicle)
			}
			continue
		}
		p.proposed[c.ride] = c.vehicle
		p.role.metrics.proposals.Inc()
	}
	ended := p.role.now()
	p.matchAgain = ended.Add(roundsShare * ended.Sub(began))
}

// matchNow matches before the next tick if a ride has begun to want a vehicle,
// unless matching has just taken long, and returns whether it has.
func (p *partition) matchNow(ctx context.Context) bool {
	if !p.owner.Wanting() {
		return false
	}
	// A clock that was set back does not stop it.
	if wait := p.matchAgain.Sub(p.role.now()); wait > 0 && wait < time.Minute {
		return false
	}
	// An owner asks for no vehicle of a partition of which it has read nothing, and
	// counts the time to decide from what it has read last.
	p.readTracks()
	p.match(ctx)
	return true
}

// mayTake returns whether a vehicle that was found may still take a ride.
func (p *partition) mayTake(vehicle string, r *life.Ride) bool {
	v, ok := p.role.fleet.Vehicle(vehicle)
	may := filterOf(r.Order)
	return ok && may.Passes(&v) && p.role.zones.OfVehicle(v.Cell, v.LatDeg, v.LonDeg) == nil
}

// posts returns the rides that wait with their candidates. Those of a ride that is
// new are searched, and those that are old are searched anew.
func (p *partition) posts(ctx context.Context, waiting []*life.Ride) []post {
	ctx, cancel := context.WithTimeout(ctx, estimateTime)
	defer cancel()
	now := p.role.now()
	searches := make(map[string]search, len(waiting))
	posts := make([]post, 0, len(waiting))
	for _, r := range waiting {
		if vehicle, was := p.proposed[r.Name]; was {
			p.role.desk.refused(vehicle)
			delete(p.proposed, r.Name)
			delete(p.searches, r.Name)
			p.role.metrics.refused.Inc()
		}
		s, ok := p.searches[r.Name]
		if age := now.Sub(s.at); !ok || age >= searchAge || age < 0 {
			s = search{now, p.candidates(ctx, r)}
		}
		searches[r.Name] = s
		posts = append(posts, post{
			match.Request{ID: r.Name, RequestedMS: r.EventMS, DeadlineMS: r.Order.GetDeadlineMs()}, s.vehicles,
		})
	}
	p.searches = searches
	return posts
}

// candidates are the vehicles that may take a ride, by expected time to its
// pickup.
func (p *partition) candidates(ctx context.Context, r *life.Ride) []match.Candidate {
	hits := p.nearest(r)
	from := make([]eta.Place, len(hits))
	for i := range hits {
		from[i] = eta.Place{LatDeg: hits[i].Vehicle.LatDeg, LonDeg: hits[i].Vehicle.LonDeg}
	}
	to := eta.Place{LatDeg: r.Order.GetPickupLatitude(), LonDeg: r.Order.GetPickupLongitude()}
	ranked, err := eta.Rank(ctx, p.role.estimator, from, to, p.role.cfg.Candidates)
	if err != nil {
		p.role.metrics.estimates.Inc()
		if ranked, err = eta.Rank(ctx, byDistance, from, to, p.role.cfg.Candidates); err != nil {
			return nil // which it never does
		}
	}
	out := make([]match.Candidate, 0, len(ranked))
	for _, a := range ranked {
		out = append(out, match.Candidate{Vehicle: hits[a.Index].Vehicle.ID, Travel: a.Travel})
	}
	return out
}

// byDistance stands in for an estimator that fails: 8 m/s and a detour of 1.35,
// as matcher.eta is set by default.
var byDistance = func() *eta.GreatCircle {
	e, err := eta.NewGreatCircle(8, 1.35)
	if err != nil {
		panic(err) // constants
	}
	return e
}()

// nearest are the vehicles nearest to a pickup that may take the ride, more of
// them than candidates where they are compared by a routing server. Those in a
// zone are its queue's.
func (p *partition) nearest(r *life.Ride) []liveindex.Hit {
	want := p.role.cfg.Candidates
	if _, direct := p.role.estimator.(*eta.GreatCircle); !direct {
		want = eta.Compared(want, maxEstimated)
	}
	for n := want + len(r.Declined); ; n *= 2 {
		hits := p.role.fleet.Nearest(p.query(r.Order, n), nil)
		all := len(hits) < n
		hits = slices.DeleteFunc(hits, func(h liveindex.Hit) bool {
			return slices.Contains(r.Declined, h.Vehicle.ID) || p.role.zones.OfVehicle(h.Vehicle.Cell, h.Vehicle.LatDeg, h.Vehicle.LonDeg) != nil
		})
		if len(hits) >= want || all || n >= mostSearched {
			return hits[:min(len(hits), want)] // of a fleet that waits in zones few are left
		}
	}
}

// mostSearched bounds the search for vehicles outside of zones.
const mostSearched = 1000

// query asks for the nearest vehicles that may serve an order.
func (p *partition) query(o *starlingv1.RideOrder, n int) liveindex.Query {
	return liveindex.Query{
		LatDeg: o.GetPickupLatitude(), LonDeg: o.GetPickupLongitude(), MaxResults: n, RadiusM: p.role.cfg.MaxRadiusM, Filter: filterOf(o),
	}
}

// filterOf lets the vehicles pass that may serve an order.
func filterOf(o *starlingv1.RideOrder) liveindex.Filter {
	filter := liveindex.Filter{Dispatchable: true, Tags: o.GetTags()}
	if o.GetPartySize() > 1 {
		filter.MinSeats = o.GetPartySize() // one that states no seats takes one
	}
	if t := o.GetVehicleType(); t != "" {
		filter.Types = []string{t}
	}
	return filter
}

// maxEstimated is how many vehicles a routing server is asked about for one ride.
const maxEstimated = 100
