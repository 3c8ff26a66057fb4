package rides_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// FuzzRideCalls sends any bytes as the request of any call, those of other nodes
// included, by callers of every kind: what comes back is an answer or names what is
// wrong, and the role goes on.
func FuzzRideCalls(f *testing.F) {
	s := start(f, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxWait = 10 * time.Millisecond })
	made, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(f, err)
	callers := []*auth.Caller{
		{}, {Scopes: auth.Dispatch}, {Issuer: "us", Subject: "ann", Scopes: auth.Rider}, {Issuer: "us", Subject: "phone", Scopes: auth.Report, Vehicle: "car"},
	}
	methods := fleettest.Methods(s.rides.Register)
	seeded := map[string]bool{}
	seed := func(method string, req proto.Message) {
		i := slices.IndexFunc(methods, func(m fleettest.Method) bool { return m.Name == "/starling.v1."+method })
		require.GreaterOrEqual(f, i, 0, method)
		b, err := proto.Marshal(req)
		require.NoError(f, err)
		seeded[methods[i].Name] = true
		f.Add(byte(i), byte(1), b)
	}
	get := &starlingv1.GetRideRequest{Name: made.Name, After: &starlingv1.RidePosition{Offset: 1 << 60}}
	list := &starlingv1.ListRidesRequest{PageToken: made.Name, PageSize: 1}
	seed("RideService/NewRide", &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45})
	seed("RideService/RequestRide", &starlingv1.RequestRideRequest{Name: made.Name, Order: order("ann")})
	seed("RideService/CancelRide", &starlingv1.CancelRideRequest{Name: made.Name, Rider: "ann"})
	seed("RideService/ActOnRide", &starlingv1.ActOnRideRequest{Name: made.Name, Vehicle: "vehicles/car", Attempt: &starlingv1.Attempt{}, Action: 1})
	seed("RideService/GetRide", get)
	seed("RideService/ListRides", list)
	seed("RideService/SubscribeRideEvents", &starlingv1.SubscribeRideEventsRequest{Name: made.Name, AfterSequence: 1})
	seed("RideService/SubscribeVehicleEvents", &starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/car"})
	seed("RideService/GetZonePlace", &starlingv1.GetZonePlaceRequest{Name: "vehicles/car"})
	seed("RideOwnerService/GetOwnedRide", &starlingv1.GetOwnedRideRequest{Request: get})
	seed("RideOwnerService/ListOwnedRides", &starlingv1.ListOwnedRidesRequest{Request: list})
	seed("RideOwnerService/ResumeRide", &starlingv1.ResumeRideRequest{Name: made.Name, AfterSequence: 7})
	seed("RideOwnerService/GetOwnedZonePlace", &starlingv1.GetOwnedZonePlaceRequest{Partition: -1, VehicleId: "car"})
	seed("RideOwnerService/CompareRides", &starlingv1.CompareRidesRequest{Partition: partitions - 1, Rides: []string{"", made.Name}})
	for _, m := range methods {
		require.True(f, seeded[m.Name], "no seed of %s", m.Name)
	}
	f.Fuzz(func(t *testing.T, which, who byte, b []byte) {
		err := methods[int(which)%len(methods)].Call(auth.WithCaller(context.Background(), callers[int(who)%len(callers)]), b)
		switch status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.AlreadyExists, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		case codes.Unavailable: // the partitions of others' questions may be any number
			require.Contains(t, err.Error(), "not owned here")
		default:
			t.Fatal(err)
		}
		if _, err := s.rides.ListRides(s.ctx, &starlingv1.ListRidesRequest{}); err != nil {
			t.Fatalf("the role is not what it was: %v", err)
		}
	})
}
