package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ride calls a ride, which the one vehicle near the pickup gets, drives it to its
// end, and follows it by its events.
func ride(t *testing.T, ingest, rides *grpc.ClientConn) {
	t.Helper()
	const lat, lon = -41.3, 174.8
	car := &starlingv1.Report{
		VehicleId: "ride-car", SessionId: 1, Sequence: 1, Availability: starlingv1.Availability_AVAILABILITY_FREE,
		Fixes: []*starlingv1.Fix{{DeviceTimeMs: time.Now().UnixMilli(), Latitude: lat, Longitude: lon}},
	}
	_, err := starlingv1.NewIngestServiceClient(ingest).SendReport(t.Context(), &starlingv1.SendReportRequest{Report: car})
	require.NoError(t, err)

	c := starlingv1.NewRideServiceClient(rides)
	named, err := c.NewRide(t.Context(), &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: lat, PickupLongitude: lon})
	require.NoError(t, err)
	_, err = c.RequestRide(t.Context(), &starlingv1.RequestRideRequest{Name: named.Name, Order: &starlingv1.RideOrder{
		Rider: "ann", PickupLatitude: lat, PickupLongitude: lon, DropoffLatitude: lat, DropoffLongitude: lon + 0.1, PartySize: 1,
	}})
	require.NoError(t, err)
	events, err := c.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: named.Name})
	require.NoError(t, err)
	actions := map[starlingv1.RidePhase]starlingv1.DriverAction{
		starlingv1.RidePhase_RIDE_PHASE_ASSIGNED: starlingv1.DriverAction_DRIVER_ACTION_ARRIVE,
		starlingv1.RidePhase_RIDE_PHASE_ARRIVED:  starlingv1.DriverAction_DRIVER_ACTION_BOARD,
		starlingv1.RidePhase_RIDE_PHASE_ON_BOARD: starlingv1.DriverAction_DRIVER_ACTION_COMPLETE,
	}
	for sequence := int64(1); ; sequence++ {
		e, err := events.Recv()
		require.NoError(t, err)
		require.True(t, e.Recovered)
		require.Equal(t, sequence, e.Event.Sequence)
		if e.Event.Kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED {
			break
		}
		if e.Ride.Sequence != sequence {
			continue // the ride stands further on
		}
		if action, ok := actions[e.Ride.Phase]; ok {
			require.Equal(t, "vehicles/ride-car", e.Ride.Vehicle)
			_, err := c.ActOnRide(t.Context(), &starlingv1.ActOnRideRequest{Name: named.Name, Vehicle: e.Ride.Vehicle, Attempt: e.Ride.Attempt, Action: action})
			require.NoError(t, err)
		}
	}
}
