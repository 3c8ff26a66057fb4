package rides

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// ownerServer answers other nodes about the partitions that are owned here. It
// asks nobody, so that no call goes round in a circle.
type ownerServer struct {
	starlingv1.UnimplementedRideOwnerServiceServer
	*Rides
}

var errElsewhere = errors.New("the partition is owned elsewhere")

func elsewhere() error {
	return unavailable("OWNED_ELSEWHERE", "the ride's partition is not owned here")
}

// GetOwnedRide implements RideOwnerService.
func (s ownerServer) GetOwnedRide(ctx context.Context, in *starlingv1.GetOwnedRideRequest) (*starlingv1.Ride, error) {
	var f faults
	req := in.GetRequest()
	id, n := f.rideAfter(req, s.log.Partitions())
	if err := f.err(); err != nil {
		return nil, err
	}
	if !s.leads(n) {
		return nil, elsewhere()
	}
	ride, err := s.ownedRide(ctx, n, id, req)
	if status.Code(err) == codes.NotFound {
		if tooMany := s.oneMore(in.GetWantedBy()); tooMany != nil {
			return nil, tooMany
		}
	}
	return ride, err
}

// ownedRide returns a ride of a partition that is owned here, after the effect of
// the call that the request names.
func (r *Rides) ownedRide(ctx context.Context, n int32, id string, req *starlingv1.GetRideRequest) (*starlingv1.Ride, error) {
	if !r.directory.ready(n) {
		return nil, rebuilding()
	}
	if after := req.GetAfter(); after != nil {
		if err := r.await(ctx, n, after.GetOffset()); err != nil {
			return nil, err
		}
	}
	ride, below := r.directory.get(n, id)
	if ride == nil {
		return nil, notFound(req.GetName())
	}
	return reflecting(r.show(ride, below), req.GetAfter()), nil
}

// reflecting returns a ride that reflects the call at a position, if it names one: its
// own position may be before it, because the watermark in `rides` that it is of is
// written only with the next event.
func reflecting(ride *starlingv1.Ride, after *starlingv1.RidePosition) *starlingv1.Ride {
	if after.GetOffset() > ride.GetPosition().GetOffset() {
		ride.Position = after
	}
	return ride
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
		return elsewhere()
	}
	return unavailable("STOPPED", "the server is stopping")
}

// ListOwnedRides implements RideOwnerService.
func (s ownerServer) ListOwnedRides(_ context.Context, in *starlingv1.ListOwnedRidesRequest) (*starlingv1.ListRidesResponse, error) {
	req := in.GetRequest()
	size, err := pageOf(req)
	if err != nil {
		return nil, err
	}
	return &starlingv1.ListRidesResponse{Rides: s.ownedPage(req, size)}, nil
}

// ownedPage returns up to size rides of the partitions that are owned here.
func (r *Rides) ownedPage(req *starlingv1.ListRidesRequest, size int) []*starlingv1.Ride {
	var rides []*starlingv1.Ride
	for _, l := range r.directory.page(req.GetPageToken(), size, func(ride *life.Ride) bool {
		return (req.GetRider() == "" || ride.Order.GetRider() == req.GetRider()) && (!req.GetActive() || !ride.Phase.Ended())
	}) {
		rides = append(rides, r.show(l.ride, l.requestsBelow))
	}
	return rides
}

// ResumeRide implements RideOwnerService.
func (s ownerServer) ResumeRide(ctx context.Context, req *starlingv1.ResumeRideRequest) (*starlingv1.ResumeRideResponse, error) {
	var f faults
	id, n := f.ride("name", req.GetName(), s.log.Partitions())
	f.Need(req.GetAfterSequence() >= 0, "after_sequence", req.GetAfterSequence(), "0 or more")
	if err := f.err(); err != nil {
		return nil, err
	}
	if !s.leads(n) {
		return nil, elsewhere()
	}
	return s.ownedEvents(ctx, n, id, req.GetAfterSequence())
}

// none is a sequence number behind every event: who has it wants the ride as it
// stands.
const none = math.MaxInt64

// ownedEvents returns the events of a ride of a partition that is owned here. One
// who is ahead of the index is answered only when the index has all that the log
// has: an owner that was paused may be behind.
func (r *Rides) ownedEvents(ctx context.Context, n int32, id string, after int64) (*starlingv1.ResumeRideResponse, error) {
	if !r.directory.ready(n) {
		return nil, rebuilding()
	}
	ride, below, steps, whole := r.directory.since(n, id, after)
	if !whole && after != none && (ride == nil || ride.Sequence < after) {
		bounds, err := r.log.Bounds(ctx, topics.Rides)
		if err == nil {
			err = r.directory.reach(ctx, n, bounds[n].End)
		}
		if err != nil {
			return nil, rebuilding()
		}
		ride, below, steps, whole = r.directory.since(n, id, after)
	}
	return r.resumed(ride, below, steps, whole), nil
}

// resumed is the answer that resumes a ride's events.
func (r *Rides) resumed(ride *life.Ride, below int64, steps []step, whole bool) *starlingv1.ResumeRideResponse {
	out := &starlingv1.ResumeRideResponse{Recovered: whole}
	if ride != nil {
		out.Ride = r.show(ride, below)
	}
	if whole {
		for _, s := range steps {
			out.Events = append(out.Events, r.message(s))
		}
	}
	return out
}

// message is a step as nodes exchange it.
func (r *Rides) message(s step) *starlingv1.RideEventAndRide {
	return &starlingv1.RideEventAndRide{Event: s.event, Ride: r.show(s.ride, s.requestsBelow)}
}

// maxCompared bounds the rides of one CompareRides.
const maxCompared = 1000

// CompareRides implements RideOwnerService.
func (s ownerServer) CompareRides(_ context.Context, req *starlingv1.CompareRidesRequest) (*starlingv1.CompareRidesResponse, error) {
	var f faults
	f.Count("rides", len(req.GetRides()), 0, maxCompared)
	if err := f.err(); err != nil {
		return nil, err
	}
	n := req.GetPartition()
	if !s.leads(n) {
		return nil, elsewhere()
	}
	if !s.directory.ready(n) {
		return nil, rebuilding()
	}
	out := &starlingv1.CompareRidesResponse{Sequences: make([]int64, len(req.GetRides()))}
	for i, id := range req.GetRides() {
		out.Sequences[i] = s.directory.last(n, id)
	}
	return out, nil
}

func rebuilding() error {
	return unavailable("REBUILDING", "the rides are being read from the log")
}
