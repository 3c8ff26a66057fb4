package rides_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/name"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// A name that somebody made up reaches no log, whichever call it comes by.
func TestAForgedNameAppendsNothing(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxWait = 100 * time.Millisecond })
	forger, err := name.NewMaker([]byte(strings.Repeat("x", name.MinKeyBytes)))
	require.NoError(t, err)
	forged := "rides/" + forger.New(1, "ann", time.Now())
	before, err := s.log.Bounds(t.Context(), topics.RideRequests)
	require.NoError(t, err)
	for call, do := range map[string]func() error{
		"RequestRide": func() error {
			_, err := s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: forged, Order: order("ann")})
			return err
		},
		"CancelRide": func() error {
			_, err := s.rides.CancelRide(s.ctx, &starlingv1.CancelRideRequest{Name: forged, Rider: "ann"})
			return err
		},
		"ActOnRide": func() error {
			_, err := s.rides.ActOnRide(s.ctx, &starlingv1.ActOnRideRequest{
				Name: forged, Vehicle: "vehicles/car", Attempt: &starlingv1.Attempt{}, Action: starlingv1.DriverAction_DRIVER_ACTION_ACCEPT,
			})
			return err
		},
	} {
		err := do()
		require.Contains(t, []codes.Code{codes.PermissionDenied, codes.NotFound}, status.Code(err), "%s: %v", call, err)
	}
	after, err := s.log.Bounds(t.Context(), topics.RideRequests)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// A rider's token is good for some rides at a time and in a day, however often the
// rider cancels; each of these may be repeated and cancelled all the same.
func TestARiderHasSomeRidesAtATimeAndInADay(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.RiderActive, c.RiderRides = 2, 4 })
	ctx := auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Rider, Subject: "ann"})
	named := func() string {
		made, err := s.rides.NewRide(ctx, &starlingv1.NewRideRequest{PickupLatitude: 45, PickupLongitude: 9})
		require.NoError(t, err)
		return made.Name
	}
	request := func(ctx context.Context, ride string) error {
		called, err := s.rides.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: ride, Order: order("ann")})
		if err == nil {
			_, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: ride, After: called.Position})
			require.NoError(t, err)
		}
		return err
	}
	cancel := func(ride string) error {
		called, err := s.rides.CancelRide(ctx, &starlingv1.CancelRideRequest{Name: ride})
		if err == nil {
			_, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: ride, After: called.Position})
			require.NoError(t, err)
		}
		return err
	}
	tooMany := func(err error) {
		t.Helper()
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
		require.Equal(t, "TOO_MANY_RIDES", rpcstatus.ReasonOf(err))
	}
	first, second := named(), named()
	require.NoError(t, request(ctx, first))
	require.NoError(t, request(ctx, second))
	tooMany(request(ctx, named()))
	require.NoError(t, request(ctx, first), "a repetition")
	require.NoError(t, cancel(first))
	third := named()
	require.NoError(t, request(ctx, third))
	require.NoError(t, cancel(second))
	require.NoError(t, cancel(named()), "one that is cancelled from the start counts too")
	tooMany(request(ctx, named()))
	tooMany(cancel(named()))
	require.NoError(t, cancel(third))
	require.NoError(t, request(s.ctx, named()), "by a dispatcher")
	bob := auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Rider, Subject: "bob"})
	made, err := s.rides.NewRide(bob, &starlingv1.NewRideRequest{PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(t, err)
	_, err = s.rides.RequestRide(bob, &starlingv1.RequestRideRequest{Name: made.Name, Order: order("bob")})
	require.NoError(t, err)
}

// Who asks for what will never have happened waits as long as is set and no longer.
func TestWaitingForACallIsBounded(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxWait = 50 * time.Millisecond })
	made, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(t, err)
	ride := made.Name
	parts, err := name.Parse(strings.TrimPrefix(ride, "rides/"))
	require.NoError(t, err)
	_, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: ride, After: &starlingv1.RidePosition{Partition: parts.Partition, Offset: 1 << 60}})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Equal(t, "NOT_YET", rpcstatus.ReasonOf(err))

	// A caller's own deadline is its own.
	ctx, cancel := context.WithTimeout(s.ctx, time.Millisecond)
	defer cancel()
	_, err = s.rides.GetRide(ctx, &starlingv1.GetRideRequest{Name: ride, After: &starlingv1.RidePosition{Partition: parts.Partition, Offset: 1 << 60}})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Empty(t, rpcstatus.ReasonOf(err))
}

// subscriber is the server's end of a subscription.
type subscriber struct {
	grpc.ServerStreamingServer[starlingv1.SubscribeVehicleEventsResponse]
	ctx  context.Context
	open chan<- struct{}
}

func (s *subscriber) Context() context.Context { return s.ctx }
func (s *subscriber) Send(*starlingv1.SubscribeVehicleEventsResponse) error {
	s.open <- struct{}{}
	return nil
}

// One caller gets a share of the subscriptions; the others' are left.
func TestSubscriptionsAreShared(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxSubscribers, c.SubscriberShare = 4, 0.5 })
	open, ended := make(chan struct{}), make(chan error, 10)
	subscribe := func(who string) context.CancelFunc {
		ctx, cancel := context.WithCancel(auth.WithCaller(t.Context(), &auth.Caller{Issuer: "us", Subject: who, Scopes: auth.Report, Vehicle: "car"}))
		go func() {
			ended <- s.rides.SubscribeVehicleEvents(&starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/car"}, &subscriber{ctx: ctx, open: open})
		}()
		return cancel
	}
	refused := func(want string) {
		t.Helper()
		select {
		case err := <-ended:
			require.Equal(t, "TOO_MANY_SUBSCRIBERS", rpcstatus.ReasonOf(err), "%v", err)
			require.ErrorContains(t, err, want)
		case <-open:
			t.Fatal("one too many is open")
		}
	}
	leave := subscribe("ann")
	<-open
	defer subscribe("ann")()
	<-open
	defer subscribe("ann")()
	refused("rides.subscriber_share")
	defer subscribe("bob")()
	<-open
	defer subscribe("bob")()
	<-open
	defer subscribe("eve")()
	refused("rides.max_subscribers")

	leave()
	require.Equal(t, codes.Canceled, status.Code(<-ended))
	defer subscribe("eve")()
	<-open // ann's place is free
}

// A rider's or a driver's token is good for few subscriptions, a dispatcher's for its
// share.
func TestARidersSubscriptionsAreFew(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.RiderSubscribers = 1 })
	open, ended := make(chan struct{}), make(chan error, 10)
	subscribe := func(scopes auth.Scopes) context.CancelFunc {
		ctx, cancel := context.WithCancel(auth.WithCaller(t.Context(), &auth.Caller{Issuer: "us", Subject: "one", Scopes: scopes, Vehicle: "car"}))
		go func() {
			ended <- s.rides.SubscribeVehicleEvents(&starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/car"}, &subscriber{ctx: ctx, open: open})
		}()
		return cancel
	}
	defer subscribe(auth.Report)()
	<-open
	defer subscribe(auth.Report)()
	select {
	case err := <-ended:
		require.Equal(t, "TOO_MANY_SUBSCRIBERS", rpcstatus.ReasonOf(err), "%v", err)
	case <-open:
		t.Fatal("one too many is open")
	}
	defer subscribe(auth.Dispatch)()
	<-open
}

// A request may be repeated however late: its answer may have been lost.
func TestARequestMayBeRepeatedAfterItsDeadline(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil)
	o := order("ann")
	o.DeadlineMs = s.now().Add(time.Minute).UnixMilli()
	ride := s.requestOf(o)
	s.ahead.Store(int64(2 * time.Minute))
	_, err := s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: ride, Order: o})
	require.NoError(t, err)
	made, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(t, err)
	_, err = s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: made.Name, Order: o})
	require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "order.deadline_ms")
}
