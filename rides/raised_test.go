package rides_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/name"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// stored waits until the checkpoint of a partition is past so many requests.
func stored(t *testing.T, store *memlog.Store, partition int32, requests int64) {
	t.Helper()
	spec := eventlog.OwnSpec{Group: rides.DefaultConfig().Group, Source: topics.RideRequests, State: topics.RidesState}
	require.Eventually(t, func() bool {
		values, _ := store.State(spec, partition)
		var header starlingv1.RidePartitionState
		require.NoError(t, proto.Unmarshal(values["!partition"], &header))
		return header.RequestsBelow >= requests
	}, 30*time.Second, time.Millisecond)
}

// The log is lost but for rides and their state, the epoch is raised, and rides are
// asked for before their owner begins: it must not take them for those that it
// knows, though they have the same offsets.
func TestRequestsBeforeTheFirstLoadOfARaisedEpochHaveTheirEffect(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	var known, late []string
	var partition int32
	t.Run("before", func(t *testing.T) {
		s := start(t, store, func(c *rides.Config) { c.CheckpointInterval = 100 * time.Millisecond })
		s.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
		known = append(known, s.request("ann"))
		s.await(known[0], starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
		for _, rider := range []string{"bob", "cid"} {
			known = append(known, s.request(rider))
			s.await(known[len(known)-1], starlingv1.RidePhase_RIDE_PHASE_SEARCHING)
		}
		for _, rider := range []string{"dora", "eve"} {
			named, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: 45, PickupLongitude: 9})
			require.NoError(t, err)
			late = append(late, named.Name)
		}
		parts, err := name.Parse(known[0][len("rides/"):])
		require.NoError(t, err)
		partition = parts.Partition
		stored(t, store, partition, 2)
	})
	for n := range int32(partitions) {
		for _, topic := range []string{topics.RideRequests, topics.Locations, topics.Tracks} {
			store.Shorten(topic, n, 0)
		}
	}
	store.SetEpoch(2)
	ahead := func() time.Time { return time.Now().Add(time.Second) }
	gateway := memlog.Open(store, memlog.Options{Now: ahead})
	for i, rider := range []string{"dora", "eve"} {
		record := starlingv1.RideRequestRecord{Ride: late[i][len("rides/"):], Call: &starlingv1.RideRequestRecord_Order{Order: order(rider)}}
		value, err := proto.Marshal(&record)
		require.NoError(t, err)
		done := make(heard, 1)
		require.NoError(t, gateway.Append(t.Context(), topics.RideRequests, partition, eventlog.Record{Key: []byte(record.Ride), Value: value}, done))
		require.NoError(t, <-done)
	}
	require.NoError(t, gateway.Close())
	s := start(t, store, nil)
	for _, ride := range late {
		require.Eventually(t, func() bool { // it is not known before its request has been read
			read, err := s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: ride})
			return err == nil && read.Phase == starlingv1.RidePhase_RIDE_PHASE_SEARCHING
		}, 30*time.Second, time.Millisecond)
	}
	s.await(known[0], starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	s.await(known[2], starlingv1.RidePhase_RIDE_PHASE_SEARCHING)
}

// What the log has lost of rides is in their state: whoever asks finds each ride as it
// stands, and follows it from there.
func TestARideWhoseEventsTheLogHasLostIsFound(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	var bound, waits string
	var position *starlingv1.RidePosition
	t.Run("before", func(t *testing.T) {
		s := start(t, store, func(c *rides.Config) { c.CheckpointInterval = 100 * time.Millisecond })
		s.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
		bound = s.request("ann")
		position = s.await(bound, starlingv1.RidePhase_RIDE_PHASE_ASSIGNED).Position
		waits = s.request("bob")
		s.await(waits, starlingv1.RidePhase_RIDE_PHASE_SEARCHING)
		stored(t, store, position.Partition, 2)
	})
	for n := range int32(partitions) {
		store.Shorten(topics.Rides, n, 0)
	}
	store.SetEpoch(2)
	s := start(t, store, nil)
	listed, err := s.rides.ListRides(s.ctx, &starlingv1.ListRidesRequest{})
	require.NoError(t, err)
	require.Len(t, listed.Rides, 2)
	events := make(following, 10)
	go func() {
		_ = s.rides.SubscribeRideEvents(&starlingv1.SubscribeRideEventsRequest{Name: waits}, followed{ctx: s.ctx, to: events})
	}()
	require.False(t, (<-events).Recovered)
	for _, ride := range []string{bound, waits} {
		_, err := s.rides.CancelRide(s.ctx, &starlingv1.CancelRideRequest{Name: ride, Rider: map[string]string{bound: "ann", waits: "bob"}[ride]})
		require.NoError(t, err)
		s.await(ride, starlingv1.RidePhase_RIDE_PHASE_CANCELLED)
	}
	last := <-events
	require.True(t, last.Recovered)
	require.Equal(t, starlingv1.RideEventKind_RIDE_EVENT_KIND_CANCELLED, last.Event.Kind)
	require.EqualValues(t, 2, last.Event.Sequence)
}

type following chan *starlingv1.SubscribeRideEventsResponse

type followed struct {
	grpc.ServerStreamingServer[starlingv1.SubscribeRideEventsResponse]
	ctx context.Context
	to  following
}

func (f followed) Context() context.Context { return f.ctx }

func (f followed) Send(m *starlingv1.SubscribeRideEventsResponse) error {
	f.to <- m
	return nil
}

type heard chan error

func (h heard) Done(_ int64, err error) { h <- err }
