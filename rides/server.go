package rides

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Register adds RideService, and what other nodes ask the owners of partitions, to
// a gRPC server.
func (r *Rides) Register(to grpc.ServiceRegistrar) {
	starlingv1.RegisterRideServiceServer(to, r)
	starlingv1.RegisterRideOwnerServiceServer(to, ownerServer{Rides: r})
}

// NewRide implements RideService. Rides of one region are in one partition, but
// those from a zone belong to the partition of its queue.
func (r *Rides) NewRide(ctx context.Context, req *starlingv1.NewRideRequest) (*starlingv1.NewRideResponse, error) {
	rider := riderOf(ctx, req.GetRider())
	var f faults
	f.rider("rider", rider)
	f.Position("pickup_", req.GetPickupLatitude(), req.GetPickupLongitude())
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := forRider(ctx, rider); err != nil {
		return nil, err
	}
	now := r.now()
	partition, err := r.partitionAt(req.GetPickupLatitude(), req.GetPickupLongitude())
	if err != nil {
		return nil, err
	}
	if z := r.zones.At(req.GetPickupLatitude(), req.GetPickupLongitude()); z != nil {
		partition = z.Partition
	}
	return &starlingv1.NewRideResponse{
		Name: ridePrefix + r.names.New(partition, rider, now), ExpireTime: timestamppb.New(now.Add(r.cfg.NameAge)),
	}, nil
}

// RequestRide implements RideService.
func (r *Rides) RequestRide(ctx context.Context, req *starlingv1.RequestRideRequest) (*starlingv1.RideCallResponse, error) {
	var f faults
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	f.order(req.GetOrder(), r.now())
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := r.mayUse(ctx, id, req.GetOrder().GetRider()); err != nil {
		return nil, err
	}
	order := req.GetOrder()
	if err := r.ofZone(n, order); err != nil {
		return nil, err
	}
	stored, err := r.orderOf(ctx, n, id, wantedBy(ctx, order.GetRider()))
	if err != nil {
		return nil, err
	}
	if stored != nil && !sameOrder(stored, order) {
		return nil, rpcstatus.Error(codes.AlreadyExists, rpcstatus.Reason{Domain: domain, Name: "RIDE_CONFLICT"},
			fmt.Sprintf("%s was requested with another content; GetRide shows it", req.GetName()))
	}
	if stored == nil {
		if f.inTime(order, r.now()); f.err() != nil {
			return nil, f.err()
		}
	}
	return r.call(ctx, n, &starlingv1.RideRequestRecord{Ride: id, Call: &starlingv1.RideRequestRecord_Order{Order: order}})
}

// CancelRide implements RideService.
func (r *Rides) CancelRide(ctx context.Context, req *starlingv1.CancelRideRequest) (*starlingv1.RideCallResponse, error) {
	rider := riderOf(ctx, req.GetRider())
	var f faults
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	f.rider("rider", rider)
	f.Text("reason", req.GetReason(), 0, maxReasonChars)
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := r.mayUse(ctx, id, rider); err != nil {
		return nil, err
	}
	if wanted := wantedBy(ctx, rider); wanted != "" { // a name of which nothing is known becomes a ride
		if _, err := r.orderOf(ctx, n, id, wanted); err != nil {
			return nil, err
		}
	}
	return r.call(ctx, n, &starlingv1.RideRequestRecord{Ride: id, Call: &starlingv1.RideRequestRecord_Cancellation{
		Cancellation: &starlingv1.RideCancellation{Rider: rider, Reason: req.GetReason()},
	}})
}

// ActOnRide implements RideService.
func (r *Rides) ActOnRide(ctx context.Context, req *starlingv1.ActOnRideRequest) (*starlingv1.RideCallResponse, error) {
	var f faults
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	vehicle := f.Vehicle("vehicle", req.GetVehicle())
	f.Require(req.GetAttempt() != nil, "attempt", "that of the ride which the driver was sent")
	a := req.GetAction()
	f.Need(a > 0 && a <= starlingv1.DriverAction_DRIVER_ACTION_COMPLETE, "action", int32(a), "one of the actions")
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := forVehicle(ctx, vehicle); err != nil {
		return nil, err
	}
	if err := r.known(ctx, n, id); err != nil {
		return nil, err
	}
	return r.call(ctx, n, &starlingv1.RideRequestRecord{Ride: id, Call: &starlingv1.RideRequestRecord_DriverAct{
		DriverAct: &starlingv1.DriverAct{VehicleId: vehicle, Attempt: req.GetAttempt(), Action: req.GetAction()},
	}})
}

// known returns nil if a ride is in the log, so that nothing is appended for a name
// that somebody made up: a request reaches the log only after the code in its name
// was checked for its rider, whom a driver's call does not name. A driver may have
// learned of the ride from another process, which is ahead of this one: that is
// waited for, a while.
func (r *Rides) known(ctx context.Context, n int32, id string) error {
	limited, cancel := context.WithTimeout(ctx, r.cfg.MaxWait/10)
	defer cancel()
	b := r.directory.join(n)
	defer r.directory.leave(n, b)
	for r.leads(n) {
		there, more := r.directory.has(n, id, b)
		if there {
			return nil
		}
		select {
		case <-more:
		case <-r.stopped:
			return unavailable("STOPPED", "the server is stopping")
		case <-limited.Done():
			if ctx.Err() != nil {
				return status.FromContextError(ctx.Err()).Err()
			}
			if !r.directory.ready(n) {
				return rebuilding()
			}
			return notFound(ridePrefix + id)
		}
	}
	if _, err := r.askRide(ctx, n, &starlingv1.GetOwnedRideRequest{Request: &starlingv1.GetRideRequest{Name: ridePrefix + id}}, askTimeout); err != nil {
		return peerError(ctx, err)
	}
	return nil
}

// orderOf returns what is known to have been asked for under a name, nil if that
// is not known. It fails when the ride would be one too many of the rider by whom it
// is wanted.
func (r *Rides) orderOf(ctx context.Context, n int32, id, wantedBy string) (*starlingv1.RideOrder, error) {
	if r.leads(n) {
		if ride, _ := r.directory.get(n, id); ride != nil {
			return ride.Order, nil
		}
		return nil, r.oneMore(wantedBy)
	}
	// The owner decides in any case; who can't ask it leaves that to GetRide.
	ride, err := r.askRide(ctx, n, &starlingv1.GetOwnedRideRequest{Request: &starlingv1.GetRideRequest{Name: ridePrefix + id}, WantedBy: wantedBy}, askTimeout)
	if status.Code(err) == codes.ResourceExhausted && rpcstatus.ReasonOf(err) == tooManyRides {
		return nil, err
	}
	return ride.GetOrder(), nil
}

// askRide asks the owner of a ride for it.
func (r *Rides) askRide(ctx context.Context, n int32, req *starlingv1.GetOwnedRideRequest, within time.Duration) (ride *starlingv1.Ride, err error) {
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	err = r.peers.ask(ctx, n, func(ctx context.Context, c starlingv1.RideOwnerServiceClient) (err error) {
		ride, err = c.GetOwnedRide(ctx, req)
		return err
	})
	return ride, err
}

// sameOrder returns whether a request asks for what the ride is. The owner has set
// the deadline of one that named none, and one whose cancellation overtook its request
// has only the rider, so that whatever the request asks for is no conflict.
func sameOrder(stored, asked *starlingv1.RideOrder) bool {
	if stored.GetPartySize() == 0 {
		return stored.GetRider() == asked.GetRider()
	}
	again := proto.Clone(asked).(*starlingv1.RideOrder)
	if again.DeadlineMs == 0 {
		again.DeadlineMs = stored.GetDeadlineMs()
	}
	return proto.Equal(stored, again)
}

func (r *Rides) mayUse(ctx context.Context, id, rider string) error {
	if err := forRider(ctx, rider); err != nil {
		return err
	}
	if err := r.names.Check(id, rider); err != nil {
		return denied("NOT_THE_RIDER", ridePrefix+id+": "+err.Error())
	}
	return nil
}

// call appends a record to `ride-requests` and returns when the log has it. One
// whose outcome is not known fails with UNAVAILABLE: it may be repeated.
func (r *Rides) call(ctx context.Context, n int32, record *starlingv1.RideRequestRecord) (*starlingv1.RideCallResponse, error) {
	value, err := proto.Marshal(record)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the call: %v", err)
	}
	done := newOutcomes()
	if err := r.log.Append(ctx, topics.RideRequests, n, eventlog.Record{Key: []byte(record.Ride), Value: value}, done.of(0)); err != nil {
		return nil, appendError(ctx, err)
	}
	select {
	case <-done.wake:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	d := done.take()[0]
	if d.err != nil {
		return nil, appendError(ctx, d.err)
	}
	return &starlingv1.RideCallResponse{Position: &starlingv1.RidePosition{Partition: n, Offset: d.offset}}, nil
}

func appendError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, eventlog.ErrFull):
		return unavailable("LOG_FULL", "the log takes no more for want of space: try again later")
	}
	return unavailable("LOG_UNAVAILABLE", "whether the log has the call is not known: repeat it")
}

// GetRide implements RideService.
func (r *Rides) GetRide(ctx context.Context, req *starlingv1.GetRideRequest) (*starlingv1.Ride, error) {
	var f faults
	id, n := f.rideAfter(req, r.log.Partitions())
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := r.forRide(ctx, id); err != nil {
		return nil, err
	}
	if r.leads(n) {
		return r.ownedRide(ctx, n, id, req)
	}
	ride, err := r.askRide(ctx, n, &starlingv1.GetOwnedRideRequest{Request: req}, 0)
	if err != nil {
		return nil, peerError(ctx, err)
	}
	return ride, nil
}

// show is a ride as the API has it, of a partition that reflects the requests below
// an offset.
func (r *Rides) show(ride *life.Ride, requestsBelow int64) *starlingv1.Ride {
	out := &starlingv1.Ride{
		Name: ridePrefix + ride.Name, Phase: phase(ride.Phase), Order: ride.Order, Reason: ride.Reason, Sequence: ride.Sequence,
		Epoch: r.log.Epoch(), UpdateTime: timestamppb.New(time.UnixMilli(ride.EventMS)),
	}
	if b := ride.Bound; b != nil {
		out.Vehicle, out.Attempt = limits.VehicleNamePrefix+b.VehicleID, b.Attempt.ToProto()
	}
	if ride.Phase == life.Offered {
		out.ExpireTime = timestamppb.New(time.UnixMilli(ride.ExpiresMS))
	}
	if n, err := partitionOf(ride.Name); err == nil {
		out.Position = &starlingv1.RidePosition{Partition: n, Offset: requestsBelow - 1}
	}
	return out
}

// Pages of ListRides.
const (
	defaultPage = 100
	maxPage     = 1000
)

// pageOf returns the size of the page that is asked for, or what is wrong with the
// request.
func pageOf(req *starlingv1.ListRidesRequest) (size int, err error) {
	var f faults
	size = f.Size("page_size", req.GetPageSize(), defaultPage, maxPage)
	if req.GetRider() != "" {
		f.rider("rider", req.GetRider())
	}
	if t := req.GetPageToken(); t != "" {
		if _, err := partitionOf(t); err != nil {
			f.Need(false, "page_token", t, "the next_page_token of the page before")
		}
	}
	return size, f.err()
}

// ListRides implements RideService: the rides of this node and of all others that
// own partitions.
func (r *Rides) ListRides(ctx context.Context, req *starlingv1.ListRidesRequest) (*starlingv1.ListRidesResponse, error) {
	size, err := pageOf(req)
	if err != nil {
		return nil, err
	}
	if err := forRider(ctx, req.GetRider()); err != nil {
		return nil, err
	}
	var others []int32
	for n := range r.log.Partitions() {
		if !r.leads(n) {
			others = append(others, n)
		} else if !r.directory.ready(n) {
			return nil, rebuilding()
		}
	}
	rides := r.ownedPage(req, size+1)
	owners, err := r.peers.owners(ctx, others)
	if err != nil {
		return nil, peerError(ctx, err)
	}
	asked := proto.Clone(req).(*starlingv1.ListRidesRequest)
	asked.PageSize = int32(min(size+1, maxPage))
	for _, n := range owners {
		var page *starlingv1.ListRidesResponse
		err := r.peers.ask(ctx, n, func(ctx context.Context, c starlingv1.RideOwnerServiceClient) (err error) {
			page, err = c.ListOwnedRides(ctx, &starlingv1.ListOwnedRidesRequest{Request: asked})
			return err
		})
		if err != nil {
			return nil, peerError(ctx, err)
		}
		rides = append(rides, page.GetRides()...)
	}
	slices.SortFunc(rides, func(a, b *starlingv1.Ride) int { return strings.Compare(a.GetName(), b.GetName()) })
	// A partition that changes hands meanwhile is listed by both.
	rides = slices.CompactFunc(rides, func(a, b *starlingv1.Ride) bool { return a.GetName() == b.GetName() })
	out := &starlingv1.ListRidesResponse{Rides: rides}
	if len(rides) > size || len(rides) == maxPage && len(owners) > 0 {
		out.Rides = rides[:min(size, len(rides))]
		out.NextPageToken = strings.TrimPrefix(out.Rides[len(out.Rides)-1].GetName(), ridePrefix)
	}
	return out, nil
}
