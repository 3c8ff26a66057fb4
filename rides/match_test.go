package rides_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/eventlog/memlog"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/match"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/topics"
)

// requestAt asks for a ride from a place and returns its name.
func (s *system) requestAt(rider string, latDeg, lonDeg float64) (string, error) {
	named, err := s.rides.NewRide(s.ctx, &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: latDeg, PickupLongitude: lonDeg})
	if err != nil {
		return "", err
	}
	o := order(rider)
	o.PickupLatitude, o.PickupLongitude = latDeg, lonDeg
	_, err = s.rides.RequestRide(s.ctx, &starlingv1.RequestRideRequest{Name: named.Name, Order: o})
	return named.Name, err
}

// assigned waits until a process, its owner, knows that a ride is assigned.
func assigned(at []*system, name string) (*starlingv1.Ride, error) {
	for ended := time.Now().Add(time.Minute); time.Now().Before(ended); {
		for _, s := range at {
			ride, err := s.rides.GetRide(s.ctx, &starlingv1.GetRideRequest{Name: name})
			if err == nil && ride.Phase == starlingv1.RidePhase_RIDE_PHASE_ASSIGNED {
				return ride, nil
			}
		}
		if err := retry.Sleep(at[0].ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("not assigned within a minute: " + name)
}

func counter(t *testing.T, s *system, name string) float64 {
	t.Helper()
	value, found := alarmtest.Value(t, s.metrics, name)
	require.True(t, found, name)
	return value
}

// Two processes, each with half of the partitions, and one fleet with vehicles
// for all: every ride is assigned a vehicle of its own, and few proposals fight
// for one.
func TestPartitionsSeldomFightForAVehicle(t *testing.T) {
	const vehicles, riders = 400, 160
	for _, name := range match.Names() {
		t.Run(string(name), func(t *testing.T) {
			t.Parallel()
			store := memlog.NewStore(partitions, topics.All(), 0)
			set := func(c *rides.Config) {
				c.Matcher = name
				c.Match.Window.Every, c.Match.Window.Most = 50*time.Millisecond, 200*time.Millisecond
			}
			processes := []*system{start(t, store, set), start(t, store, set)}
			rng := rand.New(rand.NewPCG(1, 1))
			place := func() (latDeg, lonDeg float64) { return 45 + rng.Float64()/6, 9 + rng.Float64()/6 }
			for v := range vehicles {
				lat, lon := place()
				processes[0].report(fmt.Sprintf("v%03d", v), lat, lon, starlingv1.Availability_AVAILABILITY_FREE)
			}
			// So many rides are under way at once, however slow the machine is.
			rides := make([]*starlingv1.Ride, riders)
			var calls errgroup.Group
			calls.SetLimit(16)
			for i := range rides {
				lat, lon := place()
				calls.Go(func() (err error) {
					name, err := processes[i%2].requestAt(fmt.Sprint("rider", i), lat, lon)
					if err == nil {
						rides[i], err = assigned(processes, name)
					}
					return err
				})
			}
			require.NoError(t, calls.Wait())
			taken := map[string]bool{}
			for _, ride := range rides {
				require.False(t, taken[ride.Vehicle])
				taken[ride.Vehicle] = true
			}
			var proposed, refused float64
			for _, s := range processes {
				require.Positive(t, counter(t, s, "starling_rides_proposals_total"), "both have partitions")
				proposed += counter(t, s, "starling_rides_proposals_total")
				refused += counter(t, s, "starling_rides_proposals_refused_total")
			}
			t.Logf("%.0f of %.0f proposals refused", refused, proposed)
			require.GreaterOrEqual(t, proposed, float64(riders))
			require.LessOrEqual(t, refused, 0.05*proposed)
		})
	}
}

// lost is a routing server that does not answer.
type lost struct{}

func (lost) Arrivals(context.Context, []eta.Place, eta.Place) ([]time.Duration, error) {
	return nil, errors.New("no answer")
}

func TestWithoutEstimatesRidesAreRankedByDistance(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), nil, func(d *rides.Deps) { d.Estimator = lost{} })
	s.report("far", 45.02, 9, starlingv1.Availability_AVAILABILITY_FREE)
	require.Equal(t, "vehicles/far", s.await(s.request("ann"), starlingv1.RidePhase_RIDE_PHASE_ASSIGNED).Vehicle)
	alarmtest.Raised(t, s.metrics, "starling_rides_estimates_failed_total")
}

func TestRefusedProposalsAreCounted(t *testing.T) {
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) { c.MaxFixAge = time.Second })
	s.report("v", 45.001, 9, starlingv1.Availability_AVAILABILITY_FREE)
	s.ahead.Store(int64(5 * time.Second)) // the fix is too old for a reservation, not for the search
	s.request("ann")
	require.Eventually(t, func() bool { return counter(t, s, "starling_rides_proposals_refused_total") > 0 }, 30*time.Second, time.Millisecond)
	alarmtest.Raised(t, s.metrics, "starling_rides_proposals_refused_total")
}

// Each ride has a free vehicle beside it and the next one kilometres away: it gets
// its own, also when it is the first that an owner matches, before any tick.
func TestARideTakesTheVehicleBesideIt(t *testing.T) {
	const riders = 40
	s := start(t, memlog.NewStore(partitions, topics.All(), 0), func(c *rides.Config) {
		c.Matcher = match.FIFO
		c.AskedFor = time.Minute // a vehicle whose proposal was dropped is not asked again in time
	})
	place := func(i int) (latDeg, lonDeg float64) { return 45 + 0.02*float64(i/8), 9 + 0.02*float64(i%8) }
	for i := range riders {
		lat, lon := place(i)
		s.report(fmt.Sprintf("v%02d", i), lat+0.001, lon, starlingv1.Availability_AVAILABILITY_FREE)
	}
	require.Eventually(t, func() bool {
		found, ok := alarmtest.Value(t, s.metrics, "starling_matcher_vehicles")
		return ok && found == riders
	}, 30*time.Second, time.Millisecond)
	var calls errgroup.Group
	for i := range riders {
		calls.Go(func() error {
			lat, lon := place(i)
			name, err := s.requestAt(fmt.Sprint("rider", i), lat, lon)
			if err != nil {
				return err
			}
			ride, err := assigned([]*system{s}, name)
			if err == nil && ride.Vehicle != fmt.Sprintf("vehicles/v%02d", i) {
				err = fmt.Errorf("ride %d got %s", i, ride.Vehicle)
			}
			return err
		})
	}
	require.NoError(t, calls.Wait())
}
