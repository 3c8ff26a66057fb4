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
