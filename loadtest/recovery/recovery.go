package recovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/loadtest/generate"
	"github.com/starling-fleet/starling/schemas/limits"
)

// Result are the recoveries of one fleet.
type Result struct {
	Log            string        `json:"log"`
	Vehicles       int           `json:"vehicles"`
	FixesPerSecond float64       `json:"fixes_per_second"`
	History        time.Duration `json:"history_ns"`
	Limit          time.Duration `json:"limit_ns"`
	Kills          []Kill        `json:"kills"`
}

// Kill is one recovery. Its times are from the start of the new processes.
type Kill struct {
	// Serving is when one search found a vehicle of every partition where it had
	// reported after the start, and named no partition as stale: every tracker
	// had caught up.
	Serving time.Duration `json:"serving_ns"`
	// CPU is what the new processes had used by then. On a busy machine it is
	// the better measure than the time that has passed.
	CPU time.Duration `json:"cpu_ns"`
	// Loading is the time that restoring states took, over all partitions.
	Loading time.Duration `json:"loading_ns"`
	// SteppedRecords and ReadTracks are what tracker and matcher had taken in by
	// then, and RestoredVehicles are known to the tracker.
	SteppedRecords   int64 `json:"stepped_records"`
	ReadTracks       int64 `json:"read_tracks"`
	RestoredVehicles int64 `json:"restored_vehicles"`
}

// Run has a fleet report, kills every process at once at a random time and
// starts them again while the fleet goes on, Kills times.
func Run(ctx context.Context, o Options) (Result, error) {
	r := Result{
		Log: "local", Vehicles: o.Vehicles, FixesPerSecond: o.FixesPerSecond,
		History: o.History, Limit: o.Limit,
	}
	if err := o.Validate(); err != nil {
		return r, fmt.Errorf("recovery: %w", err)
	}
	if o.onKafka() {
		r.Log = "kafka"
	}
	s, err := newServers(ctx, &o)
	if err != nil {
		return r, fmt.Errorf("recovery: %w", err)
	}
	err = recoveries(ctx, &o, s, &r)
	if err = errors.Join(err, s.stop()); err != nil {
		return r, fmt.Errorf("recovery: %w", err)
	}
	return r, nil
}

func recoveries(ctx context.Context, o *Options, s *servers, r *Result) error {
	conns, err := s.connectLoad()
	if err != nil {
		return err
	}
	fleet, err := s.conns.Dial(s.matcher, reconnect)
	if err != nil {
		return err
	}
	if err := fill(ctx, o, conns, 1); err != nil {
		return fmt.Errorf("build the fleet: %w", err)
	}
	b := newBeacons(conns[0], fleet)
	loading, endLoad := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer endLoad()
	load.Go(func() { b.run(loading) })
	loadErr := make(chan error, 1)
	load.Go(func() { loadErr <- keepReporting(loading, o, conns) })

	wait := o.History
	for i := range o.Kills {
		phase := time.Duration(rand.Int64N(int64(o.Between) + 1))
		o.progress("%d vehicles report %.0f fixes/s for %v", o.Vehicles, o.FixesPerSecond, (wait + phase).Round(time.Second))
		if err := pass(ctx, wait+phase, loadErr); err != nil {
			return err
		}
		k, err := s.recover(ctx, o, b)
		if err != nil {
			return err
		}
		r.Kills = append(r.Kills, k)
		o.progress("kill %d of %d: served again after %v (%v of CPU, states loaded in %v, %d records replayed, %d tracks read, %d vehicles)",
			i+1, o.Kills, k.Serving.Round(time.Millisecond), k.CPU, k.Loading.Round(time.Millisecond), k.SteppedRecords, k.ReadTracks, k.RestoredVehicles)
		wait = o.Between
	}
	return nil
}

// connectLoad opens the connections of the load.
func (s *servers) connectLoad() ([]grpc.ClientConnInterface, error) {
	return s.conns.DialN(4, s.ingest, reconnect)
}

// pass lets time pass while the load goes on.
func pass(ctx context.Context, d time.Duration, loadErr <-chan error) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-loadErr:
		return fmt.Errorf("the load ended early: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// recover kills everything and measures how soon it is back.
func (s *servers) recover(ctx context.Context, o *Options, b *beacons) (Kill, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	var k Kill
	if err := b.await(ctx, time.Now()); err != nil {
		return k, fmt.Errorf("before the kill: %w", err)
	}
	s.kill()
	if o.onKafka() {
		// The dead members' session is not Starling's time.
		if err := pass(ctx, sessionTimeout+time.Second, nil); err != nil {
			return k, err
		}
	}
	began := time.Now()
	if err := s.startAgain(); err != nil {
		return k, err
	}
	if err := b.await(ctx, began); err != nil {
		return k, err
	}
	k.Serving = time.Since(began)
	var err error
	if k.CPU, err = s.cpu(); err != nil {
		return k, err
	}
	m, err := s.metrics(ctx)
	if err != nil {
		return k, err
	}
	k.Loading = time.Duration(m["starling_tracker_load_duration_seconds_sum"] * float64(time.Second))
	k.SteppedRecords = int64(m["starling_tracker_records_total"])
	k.ReadTracks = int64(m["starling_matcher_records_total"] + m["starling_matcher_repeats_total"])
	k.RestoredVehicles = int64(m["starling_tracker_vehicles"])
	return k, nil
}

// load are the generator's options; vehicles drive in real time.
func load(o *Options, conns []grpc.ClientConnInterface) generate.Options {
	g := generate.DefaultOptions()
	g.Ingest, g.Watched = conns, 0
	g.Streams, g.VehiclesPerStream = o.Streams, o.Vehicles/o.Streams
	g.FixesPerReport, g.InFlight = o.FixesPerReport, 256
	g.InFlight = min(g.InFlight, limits.MaxUnacknowledgedReports*g.VehiclesPerStream)
	g.DeviceInterval = max(time.Millisecond, time.Duration(float64(o.Vehicles)/o.FixesPerSecond*float64(time.Second)))
	g.Backdate = g.DeviceInterval * time.Duration(o.FixesPerReport+1)
	g.Warmup = 0
	return g
}

// fill has every vehicle send one report of so many fixes as fast as it goes.
func fill(ctx context.Context, o *Options, conns []grpc.ClientConnInterface, fixes int) error {
	g := load(o, conns)
	g.FixesPerReport, g.ReportsPerVehicle = fixes, 1
	g.Backdate += g.DeviceInterval * time.Duration(fixes)
	g.Duration = startPatience
	r, err := generate.Run(ctx, g)
	if err != nil {
		return err
	}
	if want := int64(o.Vehicles * fixes); r.AcknowledgedFixes != want || r.RefusedFixes > 0 {
		return fmt.Errorf("%d of %d fixes were acknowledged, %d of them refused", r.AcknowledgedFixes, want, r.RefusedFixes)
	}
	return nil
}

// keepReporting has the fleet report until ctx is done.
func keepReporting(ctx context.Context, o *Options, conns []grpc.ClientConnInterface) error {
	g := load(o, conns)
	g.FixesPerSecond = o.FixesPerSecond
	g.Duration = 1000 * time.Hour
	r, err := generate.Run(ctx, g)
	if err == nil && r.RefusedFixes > 0 {
		err = fmt.Errorf("%d fixes were refused", r.RefusedFixes)
	}
	return err
}
