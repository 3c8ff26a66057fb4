package rides

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides/life"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// SubscribeRideEvents implements RideService. It ends after the ride's last
// event.
func (r *Rides) SubscribeRideEvents(req *starlingv1.SubscribeRideEventsRequest, stream grpc.ServerStreamingServer[starlingv1.SubscribeRideEventsResponse]) error {
	var f faults
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	f.Need(req.GetAfterSequence() >= 0, "after_sequence", req.GetAfterSequence(), "0 or more")
	if err := f.err(); err != nil {
		return err
	}
	if err := r.forRide(stream.Context(), id); err != nil {
		return err
	}
	leave, err := r.subscribe(stream.Context())
	if err != nil {
		return err
	}
	defer leave()
	defer r.directory.join(rideKey(id))()
	sequence := req.GetAfterSequence()
	known := sequence == 0 || req.GetEpoch() == r.log.Epoch()
	for {
		ride, events, whole, more := r.directory.since(n, id, sequence)
		if !whole || !known {
			// What the subscriber has is not a beginning of what the log has.
			if ride == nil {
				return notFound(req.GetName())
			}
			if err := stream.Send(&starlingv1.SubscribeRideEventsResponse{Ride: r.show(ride)}); err != nil {
				return err
			}
			sequence, known = ride.Sequence, true
			continue
		}
		for _, e := range events {
			if err := stream.Send(&starlingv1.SubscribeRideEventsResponse{Event: e, Ride: r.show(ride), Recovered: true}); err != nil {
				return err
			}
			sequence = e.GetSequence()
		}
		if ride != nil && ride.Phase.Ended() {
			return nil
		}
		if err := r.waitFor(stream.Context(), more); err != nil {
			return err
		}
	}
}

// SubscribeVehicleEvents implements RideService.
func (r *Rides) SubscribeVehicleEvents(req *starlingv1.SubscribeVehicleEventsRequest, stream grpc.ServerStreamingServer[starlingv1.SubscribeVehicleEventsResponse]) error {
	var f faults
	vehicle := f.Vehicle("name", req.GetName())
	if err := f.err(); err != nil {
		return err
	}
	if err := forVehicle(stream.Context(), vehicle); err != nil {
		return err
	}
	leave, err := r.subscribe(stream.Context())
	if err != nil {
		return err
	}
	defer leave()
	defer r.directory.join(vehicleKey(vehicle))()
	var last *life.Ride
	for first := true; ; first = false {
		ride, more := r.directory.boundTo(vehicle)
		if first || ride != last {
			out := &starlingv1.SubscribeVehicleEventsResponse{}
			if ride != nil {
				out.Ride = r.show(ride)
			}
			if err := stream.Send(out); err != nil {
				return err
			}
			last = ride
		}
		if err := r.waitFor(stream.Context(), more); err != nil {
			return err
		}
	}
}

// subscribe counts a subscription in, or refuses it.
func (r *Rides) subscribe(ctx context.Context) (leave func(), err error) {
	if !r.directory.ready() {
		return nil, unavailable("REBUILDING", "the rides are being read from the log")
	}
	who := auth.Principal(ctx)
	full, ok := r.subscribers.take(who)
	if !ok {
		message := "the caller has as many subscriptions as one may have (rides.subscriber_share)"
		if full {
			message = "the server has as many subscriptions as it takes (rides.max_subscribers)"
		}
		return nil, rpcstatus.Error(codes.ResourceExhausted, rpcstatus.Reason{Domain: domain, Name: "TOO_MANY_SUBSCRIBERS"}, message, rpcstatus.RetryAfter(time.Second))
	}
	r.metrics.subscribers.Inc()
	return func() {
		r.subscribers.giveBack(who)
		r.metrics.subscribers.Dec()
	}, nil
}

func (r *Rides) waitFor(ctx context.Context, more <-chan struct{}) error {
	select {
	case <-more:
		return nil
	case <-r.stopped:
		return unavailable("STOPPED", "the server is stopping")
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
