package rides

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/limits"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// cursor is how far somebody has followed a ride.
type cursor struct {
	role  *Rides
	feed  *feed
	after int64
}

// what is found at a cursor.
type found struct {
	steps []*starlingv1.RideEventAndRide
	// snapshot is the ride as it stands, where the events behind the cursor are not
	// to be had; missing is true when there is no such ride.
	snapshot *starlingv1.Ride
	missing  bool
	// more is closed when there is more.
	more <-chan struct{}
	// failed is true when nobody could be asked: it is to be tried again.
	failed bool
}

// advance returns what is behind the cursor and sets it there.
func (c *cursor) advance(ctx context.Context) (found, error) {
	for {
		steps, ask, more := c.feed.next(c.after)
		if !ask {
			c.after += int64(len(steps))
			return found{steps: steps, more: more}, nil
		}
		snapshot, there, err := c.role.feeds.fill(ctx, c.feed, c.after)
		switch {
		case ctx.Err() != nil:
			return found{}, status.FromContextError(ctx.Err()).Err()
		case err != nil:
			return found{failed: true, more: more}, nil
		case snapshot != nil:
			c.after = snapshot.GetSequence()
			return found{snapshot: snapshot, more: more}, nil
		case !there:
			return found{missing: true, more: more}, nil
		}
	}
}

// retryAsking is how soon a subscriber whose ride nobody could be asked for tries
// again.
const retryAsking = 500 * time.Millisecond

// SubscribeRideEvents implements RideService. It ends after the ride's last
// event.
func (r *Rides) SubscribeRideEvents(req *starlingv1.SubscribeRideEventsRequest, stream grpc.ServerStreamingServer[starlingv1.SubscribeRideEventsResponse]) error {
	ctx := stream.Context()
	var f faults
	id, n := f.ride("name", req.GetName(), r.log.Partitions())
	f.Need(req.GetAfterSequence() >= 0, "after_sequence", req.GetAfterSequence(), "0 or more")
	if err := f.err(); err != nil {
		return err
	}
	if err := r.forRide(ctx, id); err != nil {
		return err
	}
	release, err := r.subscribe(ctx)
	if err != nil {
		return err
	}
	defer release()
	feed, leave := r.feeds.join(ctx, id, n)
	defer leave()
	c := &cursor{role: r, feed: feed, after: req.GetAfterSequence()}
	if c.after > 0 && req.GetEpoch() != r.log.Epoch() {
		c.after = none // of another log: no beginning of what this one has
	}
	s := &rideSubscription{role: r, stream: stream, name: req.GetName(), positions: req.GetPositions()}
	defer s.unfollow()
	return s.run(ctx, c)
}

// rideSubscription is one call of SubscribeRideEvents.
type rideSubscription struct {
	role      *Rides
	stream    grpc.ServerStreamingServer[starlingv1.SubscribeRideEventsResponse]
	name      string
	positions bool

	vehicle  string        // whose position is sent, empty for none
	watch    *vehicleWatch // of that vehicle
	leave    func()
	sentTime int64 // device time of the last position that was sent
}

func (s *rideSubscription) run(ctx context.Context, c *cursor) error {
	for {
		at, err := c.advance(ctx)
		if err != nil {
			return err
		}
		if at.missing {
			return notFound(s.name)
		}
		ended, err := s.send(at)
		if err != nil || ended {
			return err
		}
		if c.after > 0 && len(at.steps) == 0 && at.snapshot == nil && !at.failed && c.feed.endedAt(c.after) {
			return nil // resumed behind the last event
		}
		if err := s.wait(ctx, at); err != nil {
			return err
		}
	}
}

// send passes on what was found, and returns whether it was the ride's end.
func (s *rideSubscription) send(at found) (ended bool, err error) {
	ride := at.snapshot
	if ride != nil {
		if err := s.stream.Send(&starlingv1.SubscribeRideEventsResponse{Ride: ride}); err != nil {
			return false, err
		}
	}
	for _, x := range at.steps {
		ride = x.GetRide()
		if err := s.stream.Send(&starlingv1.SubscribeRideEventsResponse{Event: x.GetEvent(), Ride: ride, Recovered: true}); err != nil {
			return false, err
		}
	}
	if ride != nil {
		s.follow(ride)
		return phaseEnded(ride.GetPhase()), nil
	}
	return false, nil
}

// wait returns when there may be more to send, having sent newer positions
// meanwhile.
func (s *rideSubscription) wait(ctx context.Context, at found) error {
	var again <-chan time.Time
	if at.failed {
		timer := time.NewTimer(retryAsking)
		defer timer.Stop()
		again = timer.C
	}
	for {
		moved, err := s.sendPosition()
		if err != nil {
			return err
		}
		select {
		case <-moved:
		case <-at.more:
			return nil
		case <-again:
			return nil
		case <-s.role.stopped:
			return unavailable("STOPPED", "the server is stopping")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// follow watches the vehicle that comes for the ride, if one does.
func (s *rideSubscription) follow(ride *starlingv1.Ride) {
	vehicle := ""
	if p := ride.GetPhase(); s.positions && p >= starlingv1.RidePhase_RIDE_PHASE_ASSIGNED && p <= starlingv1.RidePhase_RIDE_PHASE_ON_BOARD {
		vehicle = ride.GetVehicle()[len(limits.VehicleNamePrefix):]
	}
	if vehicle == s.vehicle {
		return
	}
	s.unfollow()
	if vehicle != "" {
		s.vehicle, s.sentTime = vehicle, 0
		s.watch, s.leave = s.role.board.follow(vehicle)
	}
}

func (s *rideSubscription) unfollow() {
	if s.leave != nil {
		s.leave()
	}
	s.vehicle, s.watch, s.leave = "", nil, nil
}

// sendPosition sends the vehicle's position if it is newer than the last, and
// returns what is closed when there may be another.
func (s *rideSubscription) sendPosition() (moved <-chan struct{}, err error) {
	if s.watch == nil {
		return nil, nil
	}
	seen, moved := s.watch.now()
	if v := &seen.view; v.DeviceTimeMS > s.sentTime {
		s.sentTime = v.DeviceTimeMS
		p := &starlingv1.RideVehiclePosition{
			Vehicle: limits.VehicleNamePrefix + s.vehicle, Latitude: v.LatDeg, Longitude: v.LonDeg, DeviceTime: timestamppb.New(time.UnixMilli(v.DeviceTimeMS)),
			SeenTime: timestamppb.New(time.UnixMilli(v.SeenTimeMS)),
		}
		if v.HasSpeed {
			p.SpeedMps = &v.SpeedMPS
		}
		if v.HasHeading {
			p.HeadingDeg = &v.HeadingDeg
		}
		err = s.stream.Send(&starlingv1.SubscribeRideEventsResponse{VehiclePosition: p, Recovered: true})
	}
	return moved, err
}

// SubscribeVehicleEvents implements RideService. The vehicle's view shows what it
// is reserved for, and that ride's owner whether it is bound.
func (r *Rides) SubscribeVehicleEvents(req *starlingv1.SubscribeVehicleEventsRequest, stream grpc.ServerStreamingServer[starlingv1.SubscribeVehicleEventsResponse]) error {
	ctx := stream.Context()
	var f faults
	vehicle := f.Vehicle("name", req.GetName())
	if err := f.err(); err != nil {
		return err
	}
	if err := forVehicle(ctx, vehicle); err != nil {
		return err
	}
	release, err := r.subscribe(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := &vehicleSubscription{role: r, name: req.GetName(), leave: func() {}}
	watch, leave := r.board.follow(vehicle)
	defer leave()
	defer func() { s.leave() }()
	sent, first := (*starlingv1.Ride)(nil), true
	for {
		seen, moved := watch.now()
		at, err := s.look(ctx, seen)
		if err != nil {
			return err
		}
		if !at.failed && (first || at.snapshot != sent) {
			if err := stream.Send(&starlingv1.SubscribeVehicleEventsResponse{Ride: at.snapshot}); err != nil {
				return err
			}
			sent, first = at.snapshot, false
		}
		if err := s.wait(ctx, at, moved); err != nil {
			return err
		}
	}
}

// vehicleSubscription is one call of SubscribeVehicleEvents.
type vehicleSubscription struct {
	role   *Rides
	name   string // of the vehicle
	cursor *cursor
	ride   *starlingv1.Ride // as it was last found
	leave  func()           // of the ride that is followed
}

// look returns the ride that the vehicle is bound to as the snapshot, nil if none.
// A ride is followed from when the vehicle is reserved for it until it is bound to
// it no more and reserved for something else, or for nothing.
func (s *vehicleSubscription) look(ctx context.Context, seen sighting) (found, error) {
	reserved := ""
	if v := seen.view.Reservation; v != nil {
		reserved = v.Ride
	}
	for {
		if s.cursor == nil {
			n, err := partitionOf(reserved)
			if reserved == "" || err != nil || n >= s.role.log.Partitions() {
				return found{}, nil
			}
			s.ride = nil
			s.cursor = &cursor{role: s.role, after: none}
			s.cursor.feed, s.leave = s.role.feeds.join(ctx, reserved, n)
		}
		at, err := s.cursor.advance(ctx)
		switch {
		case err != nil, at.failed:
			return at, err
		case at.missing:
			s.cursor.after = 0 // its first event is still to come
			continue
		case at.snapshot != nil:
			s.ride = at.snapshot
		case len(at.steps) > 0:
			s.ride = at.steps[len(at.steps)-1].GetRide()
		}
		if s.ride.GetVehicle() == s.name {
			at.snapshot = s.ride
			return at, nil
		}
		if reserved == s.cursor.feed.ride {
			at.snapshot = nil
			return at, nil
		}
		s.leave()
		s.cursor, s.leave = nil, func() {}
	}
}

func (s *vehicleSubscription) wait(ctx context.Context, at found, moved <-chan struct{}) error {
	var again <-chan time.Time
	if at.failed {
		timer := time.NewTimer(retryAsking)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-moved:
	case <-at.more:
	case <-again:
	case <-s.role.stopped:
		return unavailable("STOPPED", "the server is stopping")
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// subscribe counts a subscription in, or refuses it.
func (r *Rides) subscribe(ctx context.Context) (leave func(), err error) {
	select {
	case <-r.stopped:
		return nil, unavailable("STOPPED", "the server is stopping")
	default:
	}
	who, most := auth.Principal(ctx), max(1, int(float64(r.cfg.MaxSubscribers)*r.cfg.SubscriberShare))
	if !auth.CallerOf(ctx).Has(everyRide) {
		most = min(most, r.cfg.RiderSubscribers)
	}
	if full, over := r.subscribers.Take(who, most); full || over {
		message := "the caller has as many subscriptions as one may have (rides.subscriber_share, rides.rider_subscribers)"
		if full {
			message = "the server has as many subscriptions as it takes (rides.max_subscribers)"
		}
		return nil, rpcstatus.Error(codes.ResourceExhausted, rpcstatus.Reason{Domain: domain, Name: "TOO_MANY_SUBSCRIBERS"}, message, rpcstatus.RetryAfter(time.Second))
	}
	r.metrics.subscribers.Inc()
	return func() {
		r.subscribers.Release(who)
		r.metrics.subscribers.Dec()
	}, nil
}

// errStopped reports that the role has ended.
var errStopped = errors.New("the role has stopped")
