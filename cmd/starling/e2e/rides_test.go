package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/redistest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// ride calls a ride, which the one vehicle near the pickup gets, and drives it to
// its end by its events at the first node, while it is followed at all of them.
// between, if not nil, is called with each phase in which the driver acts, before.
func ride(t *testing.T, ingest *grpc.ClientConn, between func(starlingv1.RidePhase), nodes ...*grpc.ClientConn) {
	t.Helper()
	const lat, lon = -41.3, 174.8
	car := &starlingv1.Report{
		VehicleId: "ride-car", SessionId: 1, Sequence: 1, Availability: starlingv1.Availability_AVAILABILITY_FREE,
		Fixes: []*starlingv1.Fix{{DeviceTimeMs: time.Now().UnixMilli(), Latitude: lat, Longitude: lon}},
	}
	_, err := starlingv1.NewIngestServiceClient(ingest).SendReport(t.Context(), &starlingv1.SendReportRequest{Report: car})
	require.NoError(t, err)

	c := starlingv1.NewRideServiceClient(nodes[0])
	named, err := c.NewRide(t.Context(), &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: lat, PickupLongitude: lon})
	require.NoError(t, err)
	called, err := c.RequestRide(t.Context(), &starlingv1.RequestRideRequest{Name: named.Name, Order: &starlingv1.RideOrder{
		Rider: "ann", PickupLatitude: lat, PickupLongitude: lon, DropoffLatitude: lat, DropoffLongitude: lon + 0.1, PartySize: 1,
	}})
	require.NoError(t, err)
	actions := map[starlingv1.RidePhase]starlingv1.DriverAction{
		starlingv1.RidePhase_RIDE_PHASE_ASSIGNED: starlingv1.DriverAction_DRIVER_ACTION_ARRIVE,
		starlingv1.RidePhase_RIDE_PHASE_ARRIVED:  starlingv1.DriverAction_DRIVER_ACTION_BOARD,
		starlingv1.RidePhase_RIDE_PHASE_ON_BOARD: starlingv1.DriverAction_DRIVER_ACTION_COMPLETE,
	}
	ended := make(chan error, len(nodes))
	for i, node := range nodes {
		c := starlingv1.NewRideServiceClient(node)
		require.EventuallyWithT(t, func(collect *assert.CollectT) { // partitions may be changing hands
			_, err := c.GetRide(t.Context(), &starlingv1.GetRideRequest{Name: named.Name, After: called.Position})
			require.NoError(collect, err, "node %d", i)
		}, time.Minute, 50*time.Millisecond)
		events, err := c.SubscribeRideEvents(t.Context(), &starlingv1.SubscribeRideEventsRequest{Name: named.Name})
		require.NoError(t, err)
		go func() {
			ended <- follow(events, func(r *starlingv1.Ride) error {
				action, acts := actions[r.Phase]
				if i > 0 || !acts {
					return nil
				}
				if between != nil {
					between(r.Phase)
				}
				_, err := c.ActOnRide(t.Context(), &starlingv1.ActOnRideRequest{Name: named.Name, Vehicle: r.Vehicle, Attempt: r.Attempt, Action: action})
				return err
			})
		}()
	}
	for range nodes {
		require.NoError(t, <-ended)
	}
}

// follow receives the events of a ride until it is completed, and holds them to
// being whole and in order.
func follow(events grpc.ServerStreamingClient[starlingv1.SubscribeRideEventsResponse], then func(*starlingv1.Ride) error) error {
	for sequence := int64(1); ; sequence++ {
		e, err := events.Recv()
		if err != nil {
			return fmt.Errorf("behind event %d: %w", sequence-1, err)
		}
		if !e.Recovered || e.Event.GetSequence() != sequence || e.Ride.GetSequence() != sequence {
			return fmt.Errorf("event %d is %v", sequence, e)
		}
		if e.Event.Kind == starlingv1.RideEventKind_RIDE_EVENT_KIND_COMPLETED {
			return nil
		}
		if err := then(e.Ride); err != nil {
			return fmt.Errorf("act on event %d: %w", sequence, err)
		}
	}
}

// rideOverRedis follows a ride at two processes, of which one does not own it,
// while Redis is flushed and killed.
func rideOverRedis(t *testing.T, cfg app.Config, ingest *grpc.ClientConn) {
	t.Helper()
	server := redistest.Start(t)
	cfg.Redis.Addrs = []string{server.Addr()}
	first, second := start(t, cfg, app.Rides), start(t, cfg, app.Rides)
	ride(t, ingest, func(phase starlingv1.RidePhase) {
		switch phase {
		case starlingv1.RidePhase_RIDE_PHASE_ASSIGNED:
			server.Kill()
		case starlingv1.RidePhase_RIDE_PHASE_ARRIVED:
			server.Restart() // empty
		}
	}, dial(t, first.Addr(app.Rides)), dial(t, second.Addr(app.Rides)))
	second.end(t)
	first.end(t)
}
