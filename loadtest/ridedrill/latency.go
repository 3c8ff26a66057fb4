package ridedrill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/loadtest/generate"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// LatencyOptions set a measurement of how soon a ride is assigned.
type LatencyOptions struct {
	// Binary, KafkaBrokers, Dir, Args and Partitions are as in Options.
	Binary       string
	KafkaBrokers []string
	Dir          string
	Args         []string
	Partitions   int
	// Vehicles move and report once a second each.
	Vehicles int
	// RidesPerSecond are asked for at even times, whether or not others are
	// answered.
	RidesPerSecond float64
	// Warmup comes before Duration; rides that are asked for in it don't count.
	Warmup, Duration time.Duration
	// Held is how long an assigned ride lasts until its rider cancels it.
	Held time.Duration
	Seed uint64
}

// DefaultLatencyOptions are those of the goal.
func DefaultLatencyOptions() LatencyOptions {
	return LatencyOptions{Partitions: 24, Vehicles: 10_000, RidesPerSecond: 200, Warmup: 10 * time.Second, Duration: 30 * time.Second, Held: 2 * time.Second, Seed: 1}
}

// Validate names every fault.
func (o *LatencyOptions) Validate() error {
	var faults valid.Faults
	faults.Need(o.Binary != "", "binary", o.Binary, "set")
	faults.Need(o.Dir != "", "dir", o.Dir, "set")
	valid.Between(&faults, "partitions", o.Partitions, 2, 1000)
	faults.Need(o.Vehicles >= latencyStreams && o.Vehicles%latencyStreams == 0, "vehicles", o.Vehicles, fmt.Sprintf("a multiple of %d", latencyStreams))
	valid.Between(&faults, "rides_per_second", o.RidesPerSecond, 0.1, 10_000)
	valid.AtLeast(&faults, "warmup", o.Warmup, 0)
	valid.Positive(&faults, "duration", o.Duration)
	valid.Positive(&faults, "held", o.Held)
	return faults.Err()
}

// latencyGoal is what 99 of 100 rides must keep on the local log.
const latencyGoal = 300 * time.Millisecond

// latencyStreams carry the reports, vehicleRadiusM is how far around the centre the
// vehicles are; riders are in the inner half.
const (
	latencyStreams = 20
	vehicleRadiusM = 8_000
)

// Latency is what was measured.
type Latency struct {
	Options LatencyOptions `json:"options"`
	// Acknowledged is from the call of RequestRide to its answer, Assigned to the
	// event that the rider is sent.
	Acknowledged latency.Summary `json:"acknowledged"`
	Assigned     latency.Summary `json:"assigned"`
	// Rides were measured; Unassigned were not assigned within a minute, Failed
	// had a call that failed.
	Rides, Unassigned, Failed int64
	FirstFailure              string `json:"first_failure,omitempty"`
	// Proposals were made for the measured rides: those beyond one a ride were
	// refused.
	Proposals int64 `json:"proposals"`
	// Stages are where the time went.
	Stages []Stage         `json:"stages"`
	Load   generate.Result `json:"load"`
}

// String is the result in lines.
func (l *Latency) String() string {
	where := "the local log"
	if len(l.Options.KafkaBrokers) > 0 {
		where = "Kafka, two trackers and two owners of rides"
	}
	return fmt.Sprintf(`on           %s: %d vehicles at 1 Hz (%.0f fixes/s acknowledged), %.0f rides/s for %v
rides        %d measured, %d not assigned within %v, %d failed %s
acknowledged %v
assigned     %v
proposals    %d
%s`, where, l.Options.Vehicles, l.Load.FixesPerSecond, l.Options.RidesPerSecond, l.Options.Duration,
		l.Rides, l.Unassigned, assignPatience, l.Failed, l.FirstFailure, l.Acknowledged, l.Assigned,
		l.Proposals, l.stagesText())
}

// Misses are the bars that were missed; Kafka has none.
func (l *Latency) Misses() (misses []string) {
	if l.Rides == 0 || l.Unassigned > 0 || l.Failed > 0 {
		misses = append(misses, fmt.Sprintf("of %d rides %d were not assigned and %d failed, none may", l.Rides, l.Unassigned, l.Failed))
	}
	if len(l.Options.KafkaBrokers) == 0 && l.Assigned.P99 > latencyGoal {
		misses = append(misses, fmt.Sprintf("p99 of request to assignment is %v, the goal %v", l.Assigned.P99.Round(time.Millisecond), latencyGoal))
	}
	return misses
}

// assignPatience is how long a ride may wait for its vehicle.
const assignPatience = time.Minute

// Measure measures how soon rides are assigned.
func Measure(ctx context.Context, o LatencyOptions) (*Latency, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("latency of rides: %w", err)
	}
	w := &world{ridesArgs: []string{"--rides-matcher", "fifo"}, opts: Options{Binary: o.Binary, KafkaBrokers: o.KafkaBrokers, Dir: o.Dir, Args: o.Args, Partitions: o.Partitions, Seed: o.Seed}}
	defer w.end()
	if err := w.start(ctx); err != nil {
		return nil, fmt.Errorf("latency of rides: %w", err)
	}
	m := &measurement{w: w, out: &Latency{Options: o}, passed: make(map[string]*passed)}
	if err := m.run(ctx); err != nil {
		return nil, fmt.Errorf("latency of rides: %w", err)
	}
	if err := w.stop(ctx); err != nil {
		return m.out, err
	}
	if err := m.stages(ctx); err != nil {
		return m.out, fmt.Errorf("latency of rides: %w", err)
	}
	return m.out, nil
}

type measurement struct {
	w                      *world
	out                    *Latency
	acknowledged, assigned latency.Histogram
	rides, unassigned      atomic.Int64
	failed                 atomic.Int64
	firstFailure           sync.Once
	fleet                  generate.Result

	mu     sync.Mutex
	passed map[string]*passed // the measured rides
}

func (m *measurement) run(ctx context.Context) error {
	o := m.out.Options
	load := generate.DefaultOptions()
	for range 2 {
		conn, err := m.w.conns.Dial(m.w.ingestAddr)
		if err != nil {
			return err
		}
		load.Ingest = append(load.Ingest, grpc.ClientConnInterface(conn))
	}
	load.Streams, load.VehiclesPerStream, load.FixesPerReport = latencyStreams, o.Vehicles/latencyStreams, 1
	load.FixesPerSecond, load.DeviceInterval, load.Backdate, load.Free, load.Watched = float64(o.Vehicles), 0, 0, true, 0
	load.CentreLatDeg, load.CentreLonDeg, load.RadiusM, load.Seed = centreLat, centreLon, vehicleRadiusM, int64(o.Seed)
	load.Warmup, load.Duration = o.Warmup, o.Duration+o.Held
	reporting, stopReporting := context.WithCancel(ctx)
	defer stopReporting()
	var fleet errgroup.Group
	fleet.Go(func() (err error) {
		m.fleet, err = generate.Run(reporting, load)
		return err
	})
	m.ask(ctx)
	stopReporting()
	err := fleet.Wait()
	m.out.Load = m.fleet
	m.out.Acknowledged, m.out.Assigned = m.acknowledged.Summary(), m.assigned.Summary()
	m.out.Rides, m.out.Unassigned, m.out.Failed = m.rides.Load(), m.unassigned.Load(), m.failed.Load()
	return errors.Join(err, ctx.Err())
}

// ask asks for rides at even times, from when every vehicle has reported.
func (m *measurement) ask(ctx context.Context) {
	o := m.out.Options
	first := time.Now().Add(min(o.Warmup/2, 5*time.Second))
	measured := time.Now().Add(o.Warmup)
	interval := time.Duration(float64(time.Second) / o.RidesPerSecond)
	var riders sync.WaitGroup
	for n := 0; ; n++ {
		at := first.Add(time.Duration(n) * interval)
		if at.After(measured.Add(o.Duration)) || !sleep(ctx, time.Until(at)) {
			break
		}
		rng := rand.New(rand.NewPCG(o.Seed, uint64(n)))
		riders.Go(func() { m.ride(ctx, rng, n, at.After(measured)) })
	}
	riders.Wait()
}

// ride asks for one ride, waits until it is assigned, and cancels it when it has
// lasted.
func (m *measurement) ride(ctx context.Context, rng *rand.Rand, n int, counts bool) {
	ctx, cancel := context.WithTimeout(ctx, assignPatience+m.out.Options.Held)
	defer cancel()
	if counts {
		m.rides.Add(1)
	}
	err := m.measure(ctx, rng, fmt.Sprintf("rider-%d", n), counts)
	switch {
	case err == nil || !counts:
	case ctx.Err() != nil:
		m.unassigned.Add(1)
	default:
		m.failed.Add(1)
		m.firstFailure.Do(func() { m.out.FirstFailure = strings.TrimSpace(err.Error()) })
	}
}

func (m *measurement) measure(ctx context.Context, rng *rand.Rand, rider string, counts bool) error {
	c := m.w.ridesAt(rng)
	around := vehicleRadiusM / 2 / (6371008.8 * math.Pi / 180)
	lat, lon := centreLat+around*(2*rng.Float64()-1), centreLon+around*(2*rng.Float64()-1)
	named, err := c.NewRide(ctx, &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: lat, PickupLongitude: lon})
	if err != nil {
		return err
	}
	events, err := c.SubscribeRideEvents(ctx, &starlingv1.SubscribeRideEventsRequest{Name: named.Name})
	if err != nil {
		return err
	}
	began := time.Now()
	_, err = c.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: named.Name, Order: &starlingv1.RideOrder{
		Rider: rider, PickupLatitude: lat, PickupLongitude: lon, DropoffLatitude: centreLat, DropoffLongitude: centreLon, PartySize: 1,
	}})
	if err != nil {
		return err
	}
	if counts {
		m.acknowledged.Record(time.Since(began))
	}
	for {
		e, err := events.Recv()
		if err != nil {
			return err
		}
		if e.GetEvent().GetKind() == starlingv1.RideEventKind_RIDE_EVENT_KIND_ASSIGNED {
			break
		}
	}
	if counts {
		m.assigned.Record(time.Since(began))
		m.mu.Lock()
		m.passed[strings.TrimPrefix(named.Name, "rides/")] = &passed{0: began.UnixMilli(), len(stageNames): time.Now().UnixMilli()}
		m.mu.Unlock()
	}
	if !sleep(ctx, m.out.Options.Held) {
		return ctx.Err()
	}
	_, err = c.CancelRide(ctx, &starlingv1.CancelRideRequest{Name: named.Name, Rider: rider})
	return err
}
