package rides_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/internal/h3"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

const free = starlingv1.Availability_AVAILABILITY_FREE

// withRank declares a zone of some 5 km² around the pickup of every ride.
func withRank(t *testing.T) func(*rides.Config) {
	cell, err := h3.At(45, 9, 7)
	require.NoError(t, err)
	return func(c *rides.Config) { c.Zones, c.ZoneGrace = []string{"rank=" + cell.String()}, time.Minute }
}

func (s *system) place(vehicle string) *starlingv1.GetZonePlaceResponse {
	s.t.Helper()
	p, err := s.rides.GetZonePlace(s.ctx, &starlingv1.GetZonePlaceRequest{Name: "vehicles/" + vehicle})
	require.NoError(s.t, err)
	return p
}

func (s *system) awaitPlace(vehicle string, place int32) *starlingv1.GetZonePlaceResponse {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.place(vehicle).Place == place }, 30*time.Second, time.Millisecond, "place %d of %s", place, vehicle)
	return s.place(vehicle)
}

func TestAZoneServesWhoCameFirst(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	var first *starlingv1.Ride
	t.Run("before", func(t *testing.T) {
		s := start(t, store, withRank(t))
		s.report("outside", 45.05, 9, free)
		for i, v := range []string{"c", "a", "b"} { // the later ones are nearer to the pickup
			s.report(v, 45.003-float64(i)/1000, 9, free)
			joined := s.awaitPlace(v, int32(i+1))
			require.Equal(t, "rank", joined.Zone)
			require.Equal(t, eventlog.PartitionOf([]byte("rank"), partitions), joined.Partition)
		}
		require.Zero(t, s.place("outside").Place)
		first = s.await(s.request("ann"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
		require.Equal(t, "vehicles/c", first.Vehicle)
	})
	s := start(t, store, withRank(t))
	s.sent["a"], s.sent["b"], s.sent["c"] = 1, 1, 1
	require.EqualValues(t, 2, s.awaitPlace("a", 2).Place, "the queue outlives its owner; who is on the way keeps its place until the rider is on board")
	s.act(first, starlingv1.DriverAction_DRIVER_ACTION_BOARD)
	s.awaitPlace("a", 1)
	s.awaitPlace("b", 2)
	require.Equal(t, "vehicles/a", s.await(s.request("bob"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED).Vehicle)
	s.report("b", 45.001, 9, starlingv1.Availability_AVAILABILITY_OFFLINE)
	s.awaitPlace("b", 0)
	s.report("outside", 45.05, 9, free)
	require.Equal(t, "vehicles/outside", s.await(s.request("cyd"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED).Vehicle, "the queue is empty")
}

// Vehicles that wait in a zone are not taken from it by rides from elsewhere, and
// those that fall silent lose their place after the grace.
func TestAZoneKeepsItsVehicles(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) {
		withRank(t)(c)
		c.ZoneGrace = 100 * time.Millisecond
		c.MaxFixAge = time.Minute // less than the clocks are set ahead by
	})
	s.report("inside0", 45.001, 9, free)
	s.awaitPlace("inside0", 1)
	for i := range 20 {
		s.report(fmt.Sprint("inside", i), 45.001, 9, free)
	}
	require.Eventually(t, func() bool { return s.place("inside0").Waiting == 20 }, 30*time.Second, time.Millisecond)
	s.report("outside", 45.08, 9, free)
	near := order("ann")
	near.PickupLatitude = 45.03
	ride := s.await(s.requestOf(near), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	require.Equal(t, "vehicles/outside", ride.Vehicle, "twenty are nearer")
	require.EqualValues(t, 1, s.place("inside0").Place)
	s.ahead.Store(int64(2 * time.Minute))
	s.awaitPlace("inside0", 0)
}

func TestAPickupInAZoneNeedsANameOfItsPartition(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), withRank(t))
	refused := 0
	for range 100 {
		named, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 46, PickupLongitude: 9})
		require.NoError(t, err)
		_, err = s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: named.Name, Order: order("ann")})
		if err != nil {
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			require.Equal(t, "PICKUP_IN_ZONE", rpcstatus.ReasonOf(err))
			refused++
		}
	}
	require.Greater(t, refused, 20, "three of four partitions are not the zone's")
}

func TestADriverAsksForTheirOwnPlaceOnly(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), withRank(t))
	driver := auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Report, Vehicle: "a"})
	_, err := s.rides.GetZonePlace(driver, &starlingv1.GetZonePlaceRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	_, err = s.rides.GetZonePlace(driver, &starlingv1.GetZonePlaceRequest{Name: "vehicles/b"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	_, err = s.rides.GetZonePlace(driver, &starlingv1.GetZonePlaceRequest{Name: "b"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}
