package rides_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Each call by each kind of caller: a rider's token is good for its own rides, a
// driver's for its own vehicle.
func TestWhoMayDoWhatAboutARide(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil)
	s.report("car", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	ride := s.await(s.request("ann"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)

	callers := map[string]*auth.Caller{
		"nobody":       {},
		"ann":          {Scopes: auth.Rider, Subject: "ann"},
		"bob":          {Scopes: auth.Rider, Subject: "bob"},
		"unnamed":      {Scopes: auth.Rider},
		"driver":       {Scopes: auth.Report, Vehicle: "car"},
		"other driver": {Scopes: auth.Report, Vehicle: "cart"},
		"dispatcher":   {Scopes: auth.Dispatch},
	}
	for call, c := range map[string]struct {
		do  func(context.Context) error
		may []string
	}{
		"NewRide": {func(ctx context.Context) error {
			_, err := s.rides.NewRide(ctx, &starlingv1.NewRideRequest{Rider: "ann"})
			return err
		}, []string{"ann", "dispatcher"}},
		"RequestRide": {func(ctx context.Context) error {
			_, err := s.rides.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: ride.Name, Order: order("ann")})
			return err
		}, []string{"ann", "dispatcher"}},
		"RequestRide for oneself under another's name": {func(ctx context.Context) error {
			_, err := s.rides.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: ride.Name, Order: order(auth.CallerOf(ctx).Subject + "?")})
			return err
		}, nil},
		"CancelRide": {func(ctx context.Context) error {
			_, err := s.rides.CancelRide(ctx, &starlingv1.CancelRideRequest{Name: ride.Name, Rider: "bob"})
			return err
		}, nil}, // the name is ann's, whoever asks
		"GetRide": {func(ctx context.Context) error {
			_, err := s.rides.GetRide(ctx, &starlingv1.GetRideRequest{Name: ride.Name})
			return err
		}, []string{"ann", "dispatcher"}},
		"ListRides": {func(ctx context.Context) error {
			_, err := s.rides.ListRides(ctx, &starlingv1.ListRidesRequest{Rider: "ann"})
			return err
		}, []string{"ann", "dispatcher"}},
		"ListRides of all": {func(ctx context.Context) error {
			_, err := s.rides.ListRides(ctx, &starlingv1.ListRidesRequest{})
			return err
		}, []string{"dispatcher"}},
		"ActOnRide": {func(ctx context.Context) error {
			_, err := s.rides.ActOnRide(ctx, &starlingv1.ActOnRideRequest{
				Name: ride.Name, Vehicle: ride.Vehicle, Attempt: ride.Attempt, Action: starlingv1.DriverAction_DRIVER_ACTION_ARRIVE,
			})
			return err
		}, []string{"driver", "dispatcher"}},
	} {
		for who, caller := range callers {
			err := c.do(auth.WithCaller(t.Context(), caller))
			want := codes.PermissionDenied
			for _, may := range c.may {
				if may == who {
					want = codes.OK
				}
			}
			require.Equal(t, want, status.Code(err), "%s by %s: %v", call, who, err)
		}
	}
}

// A call with a rider's token may leave the rider out.
func TestARidersTokenNamesTheRider(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil)
	ann := auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Rider, Subject: "ann"})
	named, err := s.rides.NewRide(ann, &starlingv1.NewRideRequest{})
	require.NoError(t, err)
	_, err = s.rides.RequestRide(ann, &starlingv1.RequestRideRequest{Name: named.GetName(), Order: order("ann")})
	require.NoError(t, err)
	_, err = s.rides.CancelRide(ann, &starlingv1.CancelRideRequest{Name: named.GetName()})
	require.NoError(t, err)
	for _, nobody := range []*auth.Caller{{Scopes: auth.Dispatch, Subject: "d"}, {Scopes: auth.Rider}, {Scopes: auth.Report, Subject: "ann"}} {
		_, err = s.rides.NewRide(auth.WithCaller(t.Context(), nobody), &starlingv1.NewRideRequest{})
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}
