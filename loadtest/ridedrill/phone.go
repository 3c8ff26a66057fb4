package ridedrill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Where the vehicles and the riders are: all within a kilometre, so that every
// rider may have every vehicle.
const (
	centreLat, centreLon = -41.3, 174.8
	reachDeg             = 0.004
)

// reportInterval is the pause between two reports of a phone.
const reportInterval = 500 * time.Millisecond

// phone is the app of one driver: it reports, and does what its rides need.
type phone struct {
	w        *world
	id       string
	rng      *rand.Rand // of its reports
	driving  *rand.Rand // of what its driver does
	lat, lon float64
	history  *history
	acked    atomic.Int64
	// settling keeps the phone FREE, so that in the end all vehicles are.
	settling *atomic.Bool
}

func newPhone(w *world, n int, h *history, settling *atomic.Bool) *phone {
	rng := rand.New(rand.NewPCG(w.opts.Seed, 1<<32+uint64(n)))
	return &phone{
		w: w, id: fmt.Sprintf("car-%03d", n), rng: rng, driving: rand.New(rand.NewPCG(w.opts.Seed, 1<<35+uint64(n))), history: h, settling: settling,
		lat: centreLat + reachDeg*(rng.Float64()-0.5), lon: centreLon + reachDeg*(rng.Float64()-0.5),
	}
}

// report sends the phone's reports until ctx is done, each until it is
// acknowledged.
func (p *phone) report(ctx context.Context) {
	r := &starlingv1.Report{VehicleId: p.id, SessionId: 1}
	away := 0
	for {
		r.Sequence++
		p.lat += 1e-6 * (p.rng.Float64() - 0.5)
		r.Availability = starlingv1.Availability_AVAILABILITY_FREE
		if away == 0 && p.rng.IntN(60) == 0 {
			away = 4 // of 2 s
		}
		if away > 0 && !p.settling.Load() {
			away--
			r.Availability = starlingv1.Availability_AVAILABILITY_OFFLINE
		}
		r.Fixes = []*starlingv1.Fix{{DeviceTimeMs: time.Now().UnixMilli(), Latitude: p.lat, Longitude: p.lon}}
		err := call(ctx, func(ctx context.Context, _ int) (bool, error) {
			_, err := p.w.ingest[p.rng.IntN(len(p.w.ingest))].SendReport(ctx, &starlingv1.SendReportRequest{Report: r})
			return true, err
		})
		if err != nil {
			return
		}
		p.acked.Add(1)
		if !sleep(ctx, reportInterval) {
			return
		}
	}
}

// drive follows the vehicle's rides until ctx is done. A stream ends after a
// while and is opened at any server, so that one whose server sleeps costs little.
func (p *phone) drive(ctx context.Context) {
	rng := p.driving
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, 4*time.Second+time.Duration(rng.Int64N(int64(4*time.Second))))
		p.follow(one, rng)
		cancel()
		sleep(ctx, 30*time.Millisecond)
	}
}

func (p *phone) follow(ctx context.Context, rng *rand.Rand) {
	s, err := p.w.ridesAt(rng).SubscribeVehicleEvents(ctx, &starlingv1.SubscribeVehicleEventsRequest{Name: "vehicles/" + p.id})
	if err != nil {
		return
	}
	for {
		e, err := s.Recv()
		if err != nil {
			return
		}
		if e.GetRide() != nil {
			p.act(ctx, rng, e.GetRide())
		}
	}
}

// act does the next thing that the ride needs of its driver.
func (p *phone) act(ctx context.Context, rng *rand.Rand, r *starlingv1.Ride) {
	var action starlingv1.DriverAction
	switch {
	case r.Phase < starlingv1.RidePhase_RIDE_PHASE_ON_BOARD && rng.IntN(5) == 0:
		action = starlingv1.DriverAction_DRIVER_ACTION_DECLINE
	case r.Phase == starlingv1.RidePhase_RIDE_PHASE_OFFERED:
		if rng.IntN(50) == 0 {
			return // the offer expires
		}
		action = starlingv1.DriverAction_DRIVER_ACTION_ACCEPT
	case r.Phase == starlingv1.RidePhase_RIDE_PHASE_ASSIGNED && rng.IntN(2) == 0:
		action = starlingv1.DriverAction_DRIVER_ACTION_ARRIVE
	case r.Phase == starlingv1.RidePhase_RIDE_PHASE_ON_BOARD:
		action = starlingv1.DriverAction_DRIVER_ACTION_COMPLETE
	default:
		action = starlingv1.DriverAction_DRIVER_ACTION_BOARD
	}
	if action == starlingv1.DriverAction_DRIVER_ACTION_COMPLETE || action == starlingv1.DriverAction_DRIVER_ACTION_DECLINE {
		p.history.leaving(r.Name, p.id, r.Attempt)
	}
	_ = call(ctx, func(ctx context.Context, _ int) (bool, error) {
		_, err := p.w.ridesAt(rng).ActOnRide(ctx, &starlingv1.ActOnRideRequest{Name: r.Name, Vehicle: "vehicles/" + p.id, Attempt: r.Attempt, Action: action})
		return true, err
	})
}
