package rides

import (
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/rides/life"
)

// match proposes a vehicle to every ride that waits for one: the oldest request
// takes the nearest that may take it (greedy, first in, first out).
func (p *partition) match() {
	for _, r := range p.owner.Searching() {
		for _, id := range p.candidates(r) {
			if p.owner.Propose(r.Name, id) {
				p.role.metrics.proposals.Inc()
				break
			}
		}
	}
}

// candidates are the nearest vehicles that may take a ride, nearest first.
func (p *partition) candidates(r *life.Ride) []string {
	o := r.Order
	filter := liveindex.Filter{Dispatchable: true, Tags: o.GetTags()}
	if o.GetPartySize() > 1 {
		filter.MinSeats = o.GetPartySize() // one that states no seats takes one
	}
	if t := o.GetVehicleType(); t != "" {
		filter.Types = []string{t}
	}
	hits := p.role.fleet.Nearest(liveindex.Query{
		LatDeg: o.GetPickupLatitude(), LonDeg: o.GetPickupLongitude(), MaxResults: p.role.cfg.Candidates + len(r.Declined),
		RadiusM: p.role.cfg.MaxRadiusM, Filter: filter,
	}, nil)
	ids := make([]string, 0, len(hits))
	for i := range hits {
		ids = append(ids, hits[i].Vehicle.ID)
	}
	return ids
}
