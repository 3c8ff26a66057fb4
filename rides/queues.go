package rides

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/matcher/liveindex"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/rides/zone"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// queueInterval is the pause between two looks at who is in a zone.
	queueInterval = 500 * time.Millisecond
	// maxQueue is how many vehicles of a zone are looked at; those beyond have to
	// wait until somebody leaves.
	maxQueue = 1000
)

// rank is a zone whose queue is owned here.
type rank struct {
	zone *zone.Zone
	rank *zone.Rank
	area *liveindex.Area
}

func newRanks(zones []*zone.Zone, grace time.Duration) ([]*rank, error) {
	var ranks []*rank
	for _, z := range zones {
		area, err := liveindex.NewCells(z.Cells)
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", z.Name, err)
		}
		ranks = append(ranks, &rank{zone: z, rank: zone.NewRank(grace.Milliseconds()), area: area})
	}
	return ranks, nil
}

// updateQueues has vehicles join and leave the queues of the partition's zones.
func (p *partition) updateQueues() {
	for _, k := range p.ranks {
		if !p.owner.MayChange(k.zone.Name) {
			continue
		}
		joins, leaves := k.rank.Decide(p.role.now().UnixMilli(), vehiclesOf(p.owner.State().Queue(k.zone.Name)), p.inside(k))
		if len(joins)+len(leaves) == 0 {
			continue
		}
		left := make([]*starlingv1.ZoneDeparture, 0, len(leaves))
		for _, l := range leaves {
			left = append(left, &starlingv1.ZoneDeparture{VehicleId: l.Vehicle, Reason: l.Reason})
		}
		p.owner.Change(k.zone.Name, joins, left)
	}
	p.dissolve()
}

// dissolve empties the queues of zones that are not declared any more.
func (p *partition) dissolve() {
	for _, q := range p.owner.State().Queues() {
		if len(q.Places) == 0 || slices.ContainsFunc(p.ranks, func(k *rank) bool { return k.zone.Name == q.Zone }) {
			continue
		}
		var left []*starlingv1.ZoneDeparture
		for _, place := range q.Places {
			left = append(left, &starlingv1.ZoneDeparture{VehicleId: place.VehicleID, Reason: zone.NotDeclared})
		}
		p.owner.Change(q.Zone, nil, left)
	}
}

// inside are the vehicles in a zone, as far as they report. One that carries a rider
// or takes no rides does not stay.
func (p *partition) inside(k *rank) []zone.Presence {
	hits := p.role.fleet.Nearest(liveindex.Query{MaxResults: maxQueue, Within: k.area}, nil)
	present := make([]zone.Presence, 0, len(hits))
	since := p.role.now().Add(-p.role.cfg.MaxFixAge).UnixMilli()
	for i := range hits {
		v := &hits[i].Vehicle
		if v.SeenTimeMS < since {
			continue
		}
		free := v.Availability == starlingv1.Availability_AVAILABILITY_FREE
		present = append(present, zone.Presence{
			Vehicle: v.ID, SeenMS: v.SeenTimeMS, MayJoin: v.Dispatchable, Stays: free && !p.carries(v.ID),
		})
	}
	return present
}

// carries returns whether a vehicle has the rider of one of the partition's rides on
// board. One with another's is reserved, so it does not join.
func (p *partition) carries(vehicle string) bool {
	ride := p.owner.RideOf(vehicle)
	return ride != nil && ride.Phase == life.OnBoard
}

func vehiclesOf(q *life.Queue) []string {
	if q == nil {
		return nil
	}
	ids := make([]string, 0, len(q.Places))
	for _, place := range q.Places {
		ids = append(ids, place.VehicleID)
	}
	return ids
}

// matchQueues proposes the vehicles that wait in a zone, first come, first served,
// to the rides from it, oldest first. A ride for which none of them will do is
// matched like any other.
func (p *partition) matchQueues() {
	if len(p.ranks) == 0 {
		return
	}
	for _, r := range p.owner.Searching() {
		z := p.role.zones.At(r.Order.GetPickupLatitude(), r.Order.GetPickupLongitude())
		if z == nil || z.Partition != p.number {
			continue
		}
		may := filterOf(r.Order)
		for _, id := range vehiclesOf(p.owner.State().Queue(z.Name)) {
			v, ok := p.role.fleet.Vehicle(id)
			if ok && may.Passes(&v) && p.owner.Propose(r.Name, id) {
				p.role.metrics.proposals.Inc()
				break
			}
		}
	}
}

// ofZone refuses a pickup in a zone whose queue another partition than the name's
// has: its owner would not know who is first.
func (r *Rides) ofZone(n int32, o *starlingv1.RideOrder) error {
	z := r.zones.At(o.GetPickupLatitude(), o.GetPickupLongitude())
	if z == nil || z.Partition == n {
		return nil
	}
	return rpcstatus.Error(codes.FailedPrecondition, rpcstatus.Reason{Domain: domain, Name: "PICKUP_IN_ZONE", Metadata: map[string]string{"zone": z.Name}},
		fmt.Sprintf("order.pickup: is in the zone %s: must be requested under a name that NewRide made for this pickup", z.Name))
}

// GetZonePlace implements RideService.
func (r *Rides) GetZonePlace(ctx context.Context, req *starlingv1.GetZonePlaceRequest) (*starlingv1.GetZonePlaceResponse, error) {
	var f faults
	vehicle := f.Vehicle("name", req.GetName())
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := forVehicle(ctx, vehicle); err != nil {
		return nil, err
	}
	for _, n := range r.zonePartitions(vehicle) {
		place, err := r.zonePlace(ctx, n, vehicle)
		if err != nil || place.GetZone() != "" {
			return place, err
		}
	}
	return &starlingv1.GetZonePlaceResponse{}, nil
}

// zonePartitions are those with a zone, that of the zone in which a vehicle is seen
// first.
func (r *Rides) zonePartitions(vehicle string) []int32 {
	var first *zone.Zone
	if v, ok := r.fleet.Vehicle(vehicle); ok {
		first = r.zones.OfVehicle(v.Cell, v.LatDeg, v.LonDeg)
	}
	all := r.zones.Partitions()
	if first == nil {
		return all
	}
	others := slices.DeleteFunc(all, func(n int32) bool { return n == first.Partition })
	return append([]int32{first.Partition}, others...)
}

// zonePlace returns a vehicle's place in the zones of a partition, as its owner has
// read it back.
func (r *Rides) zonePlace(ctx context.Context, n int32, vehicle string) (place *starlingv1.GetZonePlaceResponse, err error) {
	if r.leads(n) {
		return r.ownedZonePlace(n, vehicle)
	}
	err = r.peers.ask(ctx, n, func(ctx context.Context, owner starlingv1.RideOwnerServiceClient) (err error) {
		place, err = owner.GetOwnedZonePlace(ctx, &starlingv1.GetOwnedZonePlaceRequest{Partition: n, VehicleId: vehicle})
		return err
	})
	if err != nil {
		return nil, peerError(ctx, err)
	}
	return place, nil
}

func (r *Rides) ownedZonePlace(n int32, vehicle string) (*starlingv1.GetZonePlaceResponse, error) {
	if !r.directory.ready(n) {
		return nil, rebuilding()
	}
	q, at := r.directory.queued(n, vehicle)
	if q == nil {
		return &starlingv1.GetZonePlaceResponse{}, nil
	}
	place := q.Places[at]
	return &starlingv1.GetZonePlaceResponse{
		Zone: q.Zone, Place: int32(at + 1), Waiting: int32(len(q.Places)),
		JoinTime: timestamppb.New(time.UnixMilli(place.JoinedMS)), Partition: n, JoinedOffset: place.JoinedOffset,
	}, nil
}

// GetOwnedZonePlace implements RideOwnerService.
func (s ownerServer) GetOwnedZonePlace(_ context.Context, req *starlingv1.GetOwnedZonePlaceRequest) (*starlingv1.GetZonePlaceResponse, error) {
	if !s.leads(req.GetPartition()) {
		return nil, elsewhere()
	}
	return s.ownedZonePlace(req.GetPartition(), req.GetVehicleId())
}

// queued returns where a vehicle waits in the zones of a partition: the queue and
// the place from 0. A vehicle that changed zones may be in two for a moment: the
// later counts.
func (d *directory) queued(n int32, vehicleID string) (queue *life.Queue, at int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.partitions[n]
	if x == nil {
		return nil, 0
	}
	for _, q := range x.state.Queues() {
		if found := q.Find(vehicleID); found >= 0 && (queue == nil || q.Places[found].JoinedMS > queue.Places[at].JoinedMS) {
			queue, at = q, found
		}
	}
	return queue, at
}
