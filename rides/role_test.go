package rides_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/match"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

const partitions = 4

// system is a tracker, a matcher and the rides role on a log in memory.
type system struct {
	t     testing.TB
	log   *memlog.Log
	rides *rides.Rides
	// metrics are those of all of it.
	metrics *prometheus.Registry
	ctx     context.Context // of a dispatcher's calls
	sent    map[string]int64
	ahead   atomic.Int64 // what the log's and the role's clocks are ahead by
}

func (s *system) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func start(t testing.TB, store *memlog.Store, configure func(*rides.Config), change ...func(*rides.Deps)) *system {
	t.Helper()
	s := &system{t: t, sent: map[string]int64{}}
	log := memlog.Open(store, memlog.Options{Now: s.now})
	s.log = log
	quiet := slog.New(slog.DiscardHandler)
	registry := prometheus.NewRegistry()
	s.metrics = registry
	s.ctx = auth.WithCaller(t.Context(), &auth.Caller{Scopes: auth.Dispatch})
	// However slow the machine is, no vehicle's fix gets too old.
	const patient = 10 * time.Minute
	trackers, fleet := tracker.DefaultConfig(), matcher.DefaultConfig()
	trackers.DispatchMaxAge, fleet.DispatchMaxAge = patient, patient
	tr, err := tracker.New(trackers, tracker.Deps{Log: log, Registerer: registry, Logger: quiet})
	require.NoError(t, err)
	m, err := matcher.New(fleet, matcher.Deps{
		Log: log, Registerer: registry, Logger: quiet, Observe: func(n int32, track *wire.Track) { s.rides.Observe(n, track) },
	})
	require.NoError(t, err)
	cfg := rides.DefaultConfig()
	cfg.NameKeys = config.Secret(strings.Repeat("ab", 32))
	cfg.MatchInterval = 10 * time.Millisecond
	cfg.Matcher = match.FIFO // which waits for nothing
	cfg.ArrivingM = 0        // the driver reports it
	cfg.MaxFixAge = patient
	if configure != nil {
		configure(&cfg)
	}
	deps := rides.Deps{Log: log, Fleet: m, Registerer: registry, Logger: quiet, Now: s.now}
	for _, f := range change {
		f(&deps)
	}
	s.rides, err = rides.New(cfg, deps)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"tracker": tr.Run, "matcher": m.Run, "rides": s.rides.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = log.Close()
	})
	require.Eventually(t, s.rides.Ready, 30*time.Second, time.Millisecond)
	return s
}

// report makes a vehicle report that it is free at a place.
func (s *system) report(id string, latDeg, lonDeg float64, availability starlingv1.Availability) {
	s.t.Helper()
	s.sent[id]++
	r := wire.Report{SessionID: 1, Sequence: s.sent[id], Availability: availability, Fixes: []wire.Fix{{
		DeviceTimeMS: time.Now().UnixMilli(), LatDeg: latDeg, LonDeg: lonDeg, AccuracyM: 5, Has: wire.HasAccuracy,
	}}}
	value := wire.AppendReportRecord(nil, &r)
	require.NoError(s.t, s.log.Append(s.t.Context(), topics.Locations, eventlog.PartitionOf([]byte(id), partitions),
		eventlog.Record{Key: []byte(id), Value: value}, ignore{}))
}

type ignore struct{}

func (ignore) Done(int64, error) {}

func order(rider string) *starlingv1.RideOrder {
	return &starlingv1.RideOrder{Rider: rider, PickupLatitude: 45, PickupLongitude: 9, DropoffLatitude: 45.1, DropoffLongitude: 9, PartySize: 1}
}

// request asks for a ride and returns its name.
func (s *system) request(rider string) string { s.t.Helper(); return s.requestOf(order(rider)) }

func (s *system) requestOf(o *starlingv1.RideOrder) string {
	s.t.Helper()
	named, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: o.Rider, PickupLatitude: o.PickupLatitude, PickupLongitude: o.PickupLongitude})
	require.NoError(s.t, err)
	req := &starlingv1.RequestRideRequest{Name: named.Name, Order: o}
	called, err := s.rides.RequestRide(s.ctx, req)
	require.NoError(s.t, err)
	ride, err := s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: named.Name, After: called.Position})
	require.NoError(s.t, err, "a caller reads its own write")
	require.GreaterOrEqual(s.t, ride.Position.Offset, called.Position.Offset, "an answer that is not old shows it")
	require.NotZero(s.t, ride.Phase)
	_, err = s.rides.RequestRide(s.ctx, req)
	require.NoError(s.t, err, "a request may be repeated")
	return named.Name
}

// await waits until a ride is in a phase.
func (s *system) await(name string, phase starlingv1.RidePhase) *starlingv1.Ride {
	s.t.Helper()
	var ride *starlingv1.Ride
	require.Eventually(s.t, func() bool {
		var err error
		ride, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: name})
		require.NoError(s.t, err)
		return ride.Phase == phase
	}, 30*time.Second, time.Millisecond, "phase %v", phase)
	return ride
}

func (s *system) act(ride *starlingv1.Ride, action starlingv1.DriverAction) *starlingv1.Ride {
	s.t.Helper()
	called, err := s.rides.ActOnRide(s.ctx, &starlingv1.ActOnRideRequest{Name: ride.Name, Vehicle: ride.Vehicle, Attempt: ride.Attempt, Action: action})
	require.NoError(s.t, err)
	ride, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: ride.Name, After: called.Position})
	require.NoError(s.t, err)
	require.GreaterOrEqual(s.t, ride.Position.Offset, called.Position.Offset, "an answer that is not old shows it")
	return ride
}

func TestARideIsCalledMatchedDrivenAndCompleted(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil)
	s.report("far", 45.02, 9, starlingv1.Availability_AVAILABILITY_FREE)
	s.report("near", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	s.report("busy", 45.0001, 9, starlingv1.Availability_AVAILABILITY_BUSY)
	first := s.await(s.request("ann"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	second := s.await(s.request("bob"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	require.ElementsMatch(t, []string{"vehicles/near", "vehicles/far"}, []string{first.Vehicle, second.Vehicle}, "no vehicle twice")
	for _, step := range []struct {
		action starlingv1.DriverAction
		phase  starlingv1.RidePhase
	}{
		{starlingv1.DriverAction_DRIVER_ACTION_ARRIVE, starlingv1.RidePhase_RIDE_PHASE_ARRIVED},
		{starlingv1.DriverAction_DRIVER_ACTION_BOARD, starlingv1.RidePhase_RIDE_PHASE_ON_BOARD},
		{starlingv1.DriverAction_DRIVER_ACTION_COMPLETE, starlingv1.RidePhase_RIDE_PHASE_COMPLETED},
	} {
		ride := s.act(first, step.action)
		require.Equal(t, step.phase, ride.Phase)
	}
	third := s.await(s.request("cyd"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	require.Equal(t, first.Vehicle, third.Vehicle, "it was released")
}

func TestASuccessorKeepsWhatWasPromised(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	var rider *starlingv1.Ride
	t.Run("before", func(t *testing.T) {
		s := start(t, store, nil)
		s.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
		rider = s.await(s.request("ann"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	})
	s := start(t, store, nil)
	s.sent["v"] = 1
	s.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	other := s.request("bob")
	ride := s.await(rider.Name, starlingv1.RidePhase_RIDE_PHASE_ASSIGNED)
	require.Equal(t, rider.Attempt, ride.Attempt)
	called, err := s.rides.CancelRide(s.ctx, &starlingv1.CancelRideRequest{Name: rider.Name, Rider: "ann"})
	require.NoError(t, err)
	ride, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: rider.Name, After: called.Position})
	require.NoError(t, err)
	require.Equal(t, starlingv1.RidePhase_RIDE_PHASE_CANCELLED, ride.Phase)
	require.Equal(t, "vehicles/v", s.await(other, starlingv1.RidePhase_RIDE_PHASE_ASSIGNED).Vehicle, "it is free once the cancelled ride releases it")
}

func TestAnOfferIsDeclinedAndGoesToTheNext(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.Offer = time.Minute })
	for i := range 2 {
		s.report(fmt.Sprint("v", i), 45.001+float64(i)/100, 9, starlingv1.Availability_AVAILABILITY_FREE)
	}
	name := s.request("ann")
	first := s.await(name, starlingv1.RidePhase_RIDE_PHASE_OFFERED)
	s.act(first, starlingv1.DriverAction_DRIVER_ACTION_DECLINE)
	second := s.await(name, starlingv1.RidePhase_RIDE_PHASE_OFFERED)
	require.NotEqual(t, first.Vehicle, second.Vehicle)
	late := s.act(first, starlingv1.DriverAction_DRIVER_ACTION_ACCEPT)
	require.Equal(t, second.Vehicle, late.Vehicle, "the driver of an earlier attempt has no part in it any more")
	require.Equal(t, starlingv1.RidePhase_RIDE_PHASE_OFFERED, late.Phase)
	require.Equal(t, starlingv1.RidePhase_RIDE_PHASE_ASSIGNED, s.act(second, starlingv1.DriverAction_DRIVER_ACTION_ACCEPT).Phase)
}

func TestACancellationMayOvertakeItsRequest(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil)
	named, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: "ann", PickupLatitude: 45, PickupLongitude: 9})
	require.NoError(t, err)
	called, err := s.rides.CancelRide(s.ctx, &starlingv1.CancelRideRequest{Name: named.Name, Rider: "ann"})
	require.NoError(t, err)
	_, err = s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: named.Name, After: called.Position})
	require.NoError(t, err)
	called, err = s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: named.Name, Order: order("ann")})
	require.NoError(t, err, "it is no conflict")
	ride, err := s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: named.Name, After: called.Position})
	require.NoError(t, err)
	require.Equal(t, starlingv1.RidePhase_RIDE_PHASE_CANCELLED, ride.Phase)
	require.EqualValues(t, 1, ride.Sequence)
}

// The topic of rides expires, and with it what its records count by.
func TestAnOwnerTakesOverFromItselfOnceADay(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	s := start(t, store, func(c *rides.Config) { c.CheckpointInterval = 100 * time.Millisecond })
	takeovers := func() (n int) {
		for p := range int32(partitions) {
			for _, stored := range store.Records(topics.Rides, p) {
				var r starlingv1.RideRecord
				require.NoError(t, proto.Unmarshal(stored.Value, &r))
				if r.GetTakeover() != nil {
					n++
				}
			}
		}
		return n
	}
	require.Equal(t, partitions, takeovers())
	s.ahead.Store(int64(25 * time.Hour))
	require.Eventually(t, func() bool { return takeovers() == 2*partitions }, 30*time.Second, time.Millisecond)
	for range 2 * partitions {
		s.request("ann") // which waits for its effect
	}
	require.Equal(t, 2*partitions, takeovers(), "once")
}

func TestARideThatEndedLongAgoIsForgotten(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	s := start(t, store, func(c *rides.Config) { c.NameAge, c.CheckpointInterval = time.Minute, 100*time.Millisecond })
	name := s.request("ann")
	_, err := s.rides.CancelRide(s.ctx, &starlingv1.CancelRideRequest{Name: name, Rider: "ann"})
	require.NoError(t, err)
	s.await(name, starlingv1.RidePhase_RIDE_PHASE_CANCELLED)
	spec := eventlog.OwnSpec{Group: rides.DefaultConfig().Group, Source: topics.RideRequests, State: topics.RidesState}
	kept := func() bool {
		for n := range int32(partitions) {
			if state, _ := store.State(spec, n); state[strings.TrimPrefix(name, "rides/")] != nil {
				return true
			}
		}
		return false
	}
	require.Eventually(t, kept, 30*time.Second, time.Millisecond, "it is in a checkpoint")
	s.ahead.Store(int64(10 * time.Minute))
	require.Eventually(t, func() bool {
		s.request("bob") // until one has moved the stream time of the ride's partition on
		return !kept()
	}, 30*time.Second, 50*time.Millisecond)
	_, err = s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: name, Order: order("ann")})
	require.NoError(t, err)
	for range 20 {
		s.request("cyd")
	}
	require.False(t, kept(), "a name that is too old makes no ride")
}

func TestARequestThatCannotBeDecodedIsADeadLetter(t *testing.T) {
	store := memlog.NewStore(partitions, topics.All(), 0)
	s := start(t, store, nil)
	for n := range int32(partitions) {
		require.NoError(t, s.log.Append(t.Context(), topics.RideRequests, n, eventlog.Record{Key: []byte("x"), Value: []byte("\xff not a request")}, ignore{}))
	}
	name := s.request("ann") // and what comes behind it has its effect
	require.NotEmpty(t, name)
	require.Eventually(t, func() bool {
		bounds, err := s.log.Bounds(t.Context(), topics.DeadLetters)
		require.NoError(t, err)
		all := 0
		for _, b := range bounds {
			all += int(b.End)
		}
		return all == partitions
	}, 30*time.Second, time.Millisecond)
}
