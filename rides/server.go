package rides

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// Register adds RideService to a gRPC server.
func (r *Rides) Register(to grpc.ServiceRegistrar) { starlingv1.RegisterRideServiceServer(to, r) }

// NewRide implements RideService. Rides are spread evenly over all partitions.
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
	partition := eventlog.PartitionOf(fmt.Appendf(nil, "%s/%d", rider, now.UnixNano()), r.log.Partitions())
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
	if ride := r.directory.get(n, id); ride != nil && !sameOrder(ride.Order, order) {
		return nil, rpcstatus.Error(codes.AlreadyExists, rpcstatus.Reason{Domain: domain, Name: "RIDE_CONFLICT"},
			fmt.Sprintf("%s was requested with another content; GetRide shows it", req.GetName()))
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
	if !r.directory.ready() {
		return unavailable("REBUILDING", "the rides are being read from the log")
	}
	defer r.directory.join(rideKey(id))()
	limited, cancel := context.WithTimeout(ctx, r.cfg.MaxWait/10)
	defer cancel()
	for {
		ride, _, _, more := r.directory.since(n, id, math.MaxInt64)
		if ride != nil {
			return nil
		}
		if r.waitFor(limited, more) == nil {
			continue
		}
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return notFound(ridePrefix + id)
	}
}

// sameOrder returns whether a repetition asks for what the ride is. The owner has
// set the deadline of one that named none.
func sameOrder(stored, asked *starlingv1.RideOrder) bool {
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
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	after := req.GetAfter()
	f.Need(after == nil || after.GetPartition() == n && after.GetOffset() >= 0, "after", after, "the position that a call about this ride returned")
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := r.forRide(ctx, id); err != nil {
		return nil, err
	}
	if !r.directory.ready() {
		return nil, unavailable("REBUILDING", "the rides are being read from the log")
	}
	if after != nil {
		if err := r.await(ctx, n, after.GetOffset()); err != nil {
			return nil, err
		}
	}
	ride := r.directory.get(n, id)
	if ride == nil {
		return nil, notFound(req.GetName())
	}
	return r.show(ride), nil
}

// await waits until a request has had its effect and the directory shows it.
func (r *Rides) await(ctx context.Context, n int32, offset int64) error {
	limited, cancel := context.WithTimeout(ctx, r.cfg.MaxWait)
	defer cancel()
	next, err := r.effect(limited, n, offset)
	if err == nil {
		err = r.directory.reach(limited, n, next)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case limited.Err() != nil:
		return rpcstatus.Error(codes.DeadlineExceeded, rpcstatus.Reason{Domain: domain, Name: "NOT_YET", Metadata: map[string]string{"field": "after"}},
			fmt.Sprintf("the call at `after` has had no effect within %s (rides.max_wait): is it the position that the call returned?", r.cfg.MaxWait), rpcstatus.RetryAfter(time.Second))
	case errors.Is(err, errElsewhere):
		return unavailable("OWNED_ELSEWHERE", "the ride's partition is owned by another process: ask there, or without `after`")
	}
	return unavailable("STOPPED", "the server is stopping")
}

// show is a ride as the API has it.
func (r *Rides) show(ride *life.Ride) *starlingv1.Ride {
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
		r.directory.mu.Lock()
		out.Position = &starlingv1.RidePosition{Partition: n, Offset: r.directory.partitions[n].RequestsBelow - 1}
		r.directory.mu.Unlock()
	}
	return out
}

// Pages of ListRides.
const (
	defaultPage = 100
	maxPage     = 1000
)

// ListRides implements RideService.
func (r *Rides) ListRides(ctx context.Context, req *starlingv1.ListRidesRequest) (*starlingv1.ListRidesResponse, error) {
	var f faults
	size := f.Size("page_size", req.GetPageSize(), defaultPage, maxPage)
	if req.GetRider() != "" {
		f.rider("rider", req.GetRider())
	}
	if t := req.GetPageToken(); t != "" {
		if _, err := partitionOf(t); err != nil {
			f.Need(false, "page_token", t, "the next_page_token of the page before")
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	if !r.directory.ready() {
		return nil, unavailable("REBUILDING", "the rides are being read from the log")
	}
	if err := forRider(ctx, req.GetRider()); err != nil {
		return nil, err
	}
	rides := r.directory.page(req.GetPageToken(), size+1, func(ride *life.Ride) bool {
		return (req.GetRider() == "" || ride.Order.GetRider() == req.GetRider()) && (!req.GetActive() || !ride.Phase.Ended())
	})
	out := &starlingv1.ListRidesResponse{}
	if len(rides) > size {
		rides = rides[:size]
		out.NextPageToken = strings.Clone(rides[size-1].Name)
	}
	for _, ride := range rides {
		out.Rides = append(out.Rides, r.show(ride))
	}
	return out, nil
}
