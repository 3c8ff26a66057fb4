package rides

import (
	"slices"

	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// match proposes a vehicle to every ride that waits for one: the oldest request
// takes the nearest that may take it (greedy, first in, first out).
func (p *partition) match() {
	p.matchQueues()
	for _, r := range p.owner.Searching() {
		for _, id := range p.candidates(r) {
			if p.owner.Propose(r.Name, id) {
				p.role.metrics.proposals.Inc()
				break
			}
		}
	}
}

// candidates are the nearest vehicles that may take a ride, nearest first. Those in
// a zone are its queue's.
func (p *partition) candidates(r *life.Ride) []string {
	want := p.role.cfg.Candidates + len(r.Declined)
	for n := want; ; n *= 2 {
		hits := p.role.fleet.Nearest(p.query(r.Order, n), nil)
		all := len(hits) < n
		hits = slices.DeleteFunc(hits, func(h liveindex.Hit) bool {
			return p.role.zones.OfVehicle(h.Vehicle.Cell, h.Vehicle.LatDeg, h.Vehicle.LonDeg) != nil
		})
		if len(hits) < want && !all && n < mostCandidates {
			continue // of a fleet that waits in zones few are left
		}
		ids := make([]string, 0, want)
		for _, h := range hits[:min(len(hits), want)] {
			ids = append(ids, h.Vehicle.ID)
		}
		return ids
	}
}

// mostCandidates bounds the search for vehicles outside of zones.
const mostCandidates = 1000

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
