package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
	"github.com/starling-fleet/starling/internal/fleetsim"
	"github.com/starling-fleet/starling/internal/freshness"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// demoProbes is how many vehicles the demo watches for their latency.
const demoProbes = 20

// demoReport is what the demo prints at the end with --json.
type demoReport struct {
	Simulation       fleetsim.Progress `json:"simulation"`
	Searchable       latency.Summary   `json:"fix_to_searchable"`
	TrackerLag       float64           `json:"tracker_lag_records"`
	VehiclesAtCentre int               `json:"vehicles_at_centre"`
	NearestM         float64           `json:"nearest_m"`
	// Rides are how many there are in each phase.
	Rides map[string]int `json:"rides"`
}

func newDemo(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "Run everything in one process with a simulated fleet, and show it live",
		GroupID: "run",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Run every role in one process, on a local log in a temporary folder and on free
ports, drive it with a simulated fleet through the real gRPC server, and show live
figures. Rides are called around the centre and matched; each vehicle drives to its
rider and on to where the rider wants to go. Ctrl-C stops it cleanly.`,
		Example: `  starling demo
  starling demo --vehicles 2000 --period 1s
  starling demo --duration 30s --json`,
	}
	load := settings(cmd, world)
	fleet := fleetFlags(cmd)
	duration := cmd.Flags().Duration("duration", 0, "How long to run; 0 means until Ctrl-C.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		sim := fleetsim.DefaultOptions()
		sim.Duration, sim.DrainTimeout = *duration, 5*time.Second
		if sim.Fleet, err = fleet(); err != nil {
			return err
		}
		cleanUp, err := demoDefaults(cmd, &cfg)
		if err != nil {
			return err
		}
		defer cleanUp()
		d := &demo{world: world, sim: sim, quiet: *asJSON}
		report, err := d.run(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if *asJSON {
			return dialect.Print(world.Out, report)
		}
		d.farewell(report)
		return nil
	}
	return cmd
}

// demoDefaults gives the demo a folder and ports of its own where the user has
// not set them.
func demoDefaults(cmd *cobra.Command, cfg *app.Config) (cleanUp func(), err error) {
	cleanUp = func() {}
	set := cmd.Flags().Changed
	if !cfg.OnKafka() && !set("local-directory") {
		dir, err := os.MkdirTemp("", "starling-demo-")
		if err != nil {
			return nil, fmt.Errorf("make a folder for the demo's log: %w", err)
		}
		cfg.Local.Directory = dir
		cleanUp = func() { _ = os.RemoveAll(dir) }
	}
	for flag, addr := range map[string]*string{
		"server-ingest-listen":  &cfg.Server.IngestListen,
		"server-matcher-listen": &cfg.Server.MatcherListen,
		"server-json-listen":    &cfg.Server.JSONListen,
		"server-admin-listen":   &cfg.Server.AdminListen,
	} {
		if !set(flag) {
			*addr = "127.0.0.1:0"
		}
	}
	// A demonstration is one of development, unless it was given keys.
	cfg.Dev = cfg.Dev || !cfg.Auth.HasKeys()
	if !set("log-level") {
		cfg.Log.Level = "warn"
	}
	return cleanUp, nil
}

// demo is one run of the demonstration.
type demo struct {
	world IO
	sim   fleetsim.Options
	quiet bool

	process *app.App
	fleet   starlingv1.FleetServiceClient
	probe   *freshness.Probe
	rides   *demoRides
	shown   int
}

func (d *demo) printf(format string, args ...any) {
	if !d.quiet {
		_, _ = fmt.Fprintf(d.world.Out, format, args...)
	}
}

// run starts the process, drives it until ctx is done or the duration is over,
// and stops it.
func (d *demo) run(ctx context.Context, cfg app.Config) (demoReport, error) {
	logger, err := app.NewLogger(cfg.Log, d.world.Err)
	if err != nil {
		return demoReport{}, usage(err)
	}
	if d.process, err = app.New(cfg, app.AllRoles(), logger); err != nil {
		return demoReport{}, usage(err)
	}
	// The process outlives ctx, so that what is under way can be acknowledged.
	processCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.process.Run(processCtx) }()
	select {
	case err := <-ended:
		return demoReport{}, err
	case <-d.process.Ready():
	}
	report, err := d.drive(ctx)
	stop()
	return report, errors.Join(err, <-ended)
}

func (d *demo) drive(ctx context.Context) (demoReport, error) {
	ingest, err := client.Dial(d.process.Addr(app.Ingest), client.DialOptions{})
	if err != nil {
		return demoReport{}, err
	}
	defer ingest.Close()
	matcher, err := dial(d.process.Addr(app.Matcher))
	if err != nil {
		return demoReport{}, err
	}
	defer matcher.Close()
	d.fleet = starlingv1.NewFleetServiceClient(matcher)
	d.printf("Starling is up: ingest %s, matcher %s, JSON http://%s, metrics http://%s/metrics\n", d.process.Addr(app.Ingest), d.process.Addr(app.Matcher), d.process.JSONAddr(), d.process.AdminAddr())
	d.printf("%d vehicles drive around %.4f,%.4f. Ctrl-C stops.\n\n", d.sim.Fleet.Vehicles, d.sim.Fleet.CentreLatDeg, d.sim.Fleet.CentreLonDeg)

	stopProbe, err := d.startProbe(ctx, matcher)
	if err != nil {
		return demoReport{}, err
	}
	d.sim.Ingest = ingest
	d.sim.Sent = func(t fleetsim.Transmission) {
		if fixes := t.Report.Fixes; len(fixes) > 0 && !t.Resend {
			d.probe.Sent(t.Report.VehicleId, fixes[len(fixes)-1].DeviceTimeMs, time.Now())
		}
	}
	d.sim.Progress = func(p fleetsim.Progress) { d.show(ctx, p) }
	if d.rides, err = newDemoRides(matcher, d.sim.Fleet); err != nil {
		return demoReport{}, usage(err)
	}
	d.sim.Errands = d.rides.errands
	calling, stopRides := context.WithCancel(ctx)
	called := make(chan struct{})
	go func() { defer close(called); d.rides.run(calling) }()
	result, err := fleetsim.Run(ctx, d.sim)
	stopRides()
	<-called
	stopProbe()
	if err != nil {
		return demoReport{}, fmt.Errorf("drive the demo's fleet: %w", err)
	}
	// A fresh context: the last question is asked after Ctrl-C.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	answer, err := d.search(asking)
	if err != nil {
		return demoReport{}, fmt.Errorf("search at the end of the demo: %w", explain(err))
	}
	report := demoReport{Simulation: result, Searchable: d.probe.Shown(), TrackerLag: d.lag(), VehiclesAtCentre: len(answer.Results), Rides: d.rides.counts()}
	if len(answer.Results) > 0 {
		report.NearestM = answer.Results[0].DistanceM
	}
	return report, nil
}

// startProbe watches some of the fleet's vehicles.
func (d *demo) startProbe(ctx context.Context, matcher grpc.ClientConnInterface) (stop func(), err error) {
	fleet, err := fleetsim.NewFleet(d.sim.Fleet, time.Now())
	if err != nil {
		return nil, usage(err)
	}
	ids := fleet.VehicleIDs()
	d.probe = freshness.New(matcher, ids[:min(demoProbes, len(ids))])
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.probe.Run(ctx) }()
	return func() { cancel(); <-done }, nil
}

// show prints a line of figures a second, and every fifth time who is nearest.
func (d *demo) show(ctx context.Context, p fleetsim.Progress) {
	searchable := d.probe.Shown()
	d.printf("%4s  %6.0f fixes/s acknowledged, %d in all  |  ack p50 %s p99 %s  |  searchable p50 %s p99 %s  |  tracker lag %.0f records\n",
		p.Elapsed.Round(time.Second), p.FixesPerSecond, p.Client.AcknowledgedFixes,
		short(p.AckLatency.P50), short(p.AckLatency.P99), short(searchable.P50), short(searchable.P99), d.lag())
	d.printf("      rides: %s\n", d.rides.line())
	d.shown++
	if d.quiet || d.shown%5 != 3 {
		return
	}
	answer, err := d.search(ctx)
	if err != nil {
		d.printf("search: %v\n", explain(err))
		return
	}
	d.printf("\nNearest free vehicles to the centre:\n")
	_ = printNearest(d.world.Out, answer, false)
	d.printf("\n")
}

func (d *demo) search(ctx context.Context) (*starlingv1.SearchNearestResponse, error) {
	return d.fleet.SearchNearest(ctx, &starlingv1.SearchNearestRequest{
		Place:      &starlingv1.Place{Latitude: d.sim.Fleet.CentreLatDeg, Longitude: d.sim.Fleet.CentreLonDeg},
		MaxResults: 5,
		Filter:     &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE}},
	})
}

// lag is how many records of `locations` the tracker has not stepped yet.
func (d *demo) lag() float64 {
	return sumMetric(d.process.Registry(), "starling_tracker_lag_records")
}

func (d *demo) farewell(r demoReport) {
	d.printf(`
Stopped. %d fixes were acknowledged, %d reports broke off; a fix was searchable after %s (median), %s (99 %%).

Three things to try next:
  bin/starling up --dev                                 serve your own drivers: the log stays in a folder
  bin/starling simulate --vehicles 1000                 (in another terminal) a larger fleet; then
  bin/starling nearest --at %.4f,%.4f --available free  who is nearest?
`, r.Simulation.Client.AcknowledgedFixes, r.Simulation.Client.PendingReports, short(r.Searchable.P50), short(r.Searchable.P99),
		d.sim.Fleet.CentreLatDeg, d.sim.Fleet.CentreLonDeg)
}

// sumMetric adds up a metric over its labels.
func sumMetric(g prometheus.Gatherer, name string) float64 {
	families, err := g.Gather()
	if err != nil {
		return 0
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// Rides of the demo.
const (
	demoRideEvery = 2 * time.Second
	// demoMaxRides bounds the rides that are under way at once.
	demoMaxRides = 30
	// demoStep is about how long getting in and out takes.
	demoStep = 4 * time.Second
	// demoUnseen is about how long a driver waits for the arrival to be seen.
	demoUnseen = 20 * time.Second
	// demoWayM is how far a ride goes at most, north and east.
	demoWayM = 500
)

// demoRides calls rides around a place and acts as their drivers: each follows its
// ride's events, drives to the rider and on to the drop-off, and reports boarding and
// the end. The arrival is seen on the track.
type demoRides struct {
	service starlingv1.RideServiceClient
	// city has the crossings of the simulated fleet's, which are where rides begin and end.
	city    *fleetsim.Fleet
	centre  fleetsim.Place
	radiusM float64
	errands chan fleetsim.Errand
	acting  sync.WaitGroup

	mu     sync.Mutex
	phases map[starlingv1.RidePhase]int
}

func newDemoRides(conn grpc.ClientConnInterface, cfg fleetsim.Config) (*demoRides, error) {
	city, err := fleetsim.NewFleet(cfg, time.Now())
	return &demoRides{
		service: starlingv1.NewRideServiceClient(conn), city: city, centre: fleetsim.Place{LatDeg: cfg.CentreLatDeg, LonDeg: cfg.CentreLonDeg}, radiusM: cfg.RadiusM,
		errands: make(chan fleetsim.Errand), phases: map[starlingv1.RidePhase]int{},
	}, err
}

// run calls rides until ctx is done.
func (d *demoRides) run(ctx context.Context) {
	var driving sync.WaitGroup
	defer func() { driving.Wait(); d.acting.Wait() }()
	places := make(chan struct{}, demoMaxRides)
	for n := 1; ; n++ {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		driving.Go(func() {
			defer func() { <-places }()
			_ = d.ride(ctx, fmt.Sprintf("rider-%d", n)) // it ends with the demo
		})
		if retry.Sleep(ctx, demoRideEvery) != nil {
			return
		}
	}
}

// near draws a crossing within so many metres of a place, north and east.
func (d *demoRides) near(p fleetsim.Place, withinM float64) fleetsim.Place {
	north, east := 2*(rand.Float64()-0.5)*withinM, 2*(rand.Float64()-0.5)*withinM
	return d.city.Crossing(fleetsim.Place{LatDeg: p.LatDeg + north/111_195, LonDeg: p.LonDeg + east/(111_195*math.Cos(p.LatDeg*math.Pi/180))})
}

// ride calls one ride and follows it to its end.
func (d *demoRides) ride(ctx context.Context, rider string) error {
	from := d.near(d.centre, d.radiusM/4)
	to := d.near(from, demoWayM)
	named, err := d.service.NewRide(ctx, &starlingv1.NewRideRequest{Rider: rider, PickupLatitude: from.LatDeg, PickupLongitude: from.LonDeg})
	if err != nil {
		return err
	}
	if _, err = d.service.RequestRide(ctx, &starlingv1.RequestRideRequest{Name: named.Name, Order: &starlingv1.RideOrder{
		Rider: rider, PickupLatitude: from.LatDeg, PickupLongitude: from.LonDeg, DropoffLatitude: to.LatDeg, DropoffLongitude: to.LonDeg, PartySize: 1,
		DeadlineMs: time.Now().Add(time.Minute).UnixMilli(),
	}}); err != nil {
		return err
	}
	events, err := d.service.SubscribeRideEvents(ctx, &starlingv1.SubscribeRideEventsRequest{Name: named.Name})
	if err != nil {
		return err
	}
	last := &starlingv1.Ride{}
	for {
		m, err := events.Recv()
		if err != nil {
			return err
		}
		d.moved(last.Phase, m.Ride.Phase)
		if last.Vehicle != "" && m.Ride.Vehicle != last.Vehicle {
			if err := d.send(ctx, last, nil, nil); err != nil {
				return err
			}
		}
		last = m.Ride
		if err := d.drive(ctx, m.Ride); err != nil {
			return err
		}
	}
}

// drive does what a ride needs of its driver next.
func (d *demoRides) drive(ctx context.Context, ride *starlingv1.Ride) error {
	o := ride.Order
	switch ride.Phase {
	case starlingv1.RidePhase_RIDE_PHASE_OFFERED:
		return d.act(ctx, ride, starlingv1.DriverAction_DRIVER_ACTION_ACCEPT, demoStep)
	case starlingv1.RidePhase_RIDE_PHASE_ASSIGNED:
		// The arrival is seen on the track; where a tunnel or noise hides it, its driver
		// reports it.
		return d.send(ctx, ride, &fleetsim.Place{LatDeg: o.PickupLatitude, LonDeg: o.PickupLongitude}, func() {
			_ = d.act(ctx, ride, starlingv1.DriverAction_DRIVER_ACTION_ARRIVE, demoUnseen) // too late, it has no effect
		})
	case starlingv1.RidePhase_RIDE_PHASE_ARRIVED:
		return d.act(ctx, ride, starlingv1.DriverAction_DRIVER_ACTION_BOARD, demoStep)
	case starlingv1.RidePhase_RIDE_PHASE_ON_BOARD:
		return d.send(ctx, ride, &fleetsim.Place{LatDeg: o.DropoffLatitude, LonDeg: o.DropoffLongitude}, func() {
			_ = d.act(ctx, ride, starlingv1.DriverAction_DRIVER_ACTION_COMPLETE, demoStep) // it ends with the demo
		})
	}
	return nil
}

// send sends a ride's vehicle somewhere and has then done when it is there; without a
// place the vehicle goes its own way.
func (d *demoRides) send(ctx context.Context, ride *starlingv1.Ride, to *fleetsim.Place, then func()) error {
	e := fleetsim.Errand{VehicleID: strings.TrimPrefix(ride.Vehicle, "vehicles/"), For: ride.Name, To: to}
	if then != nil {
		e.Arrived = func() { d.acting.Go(then) }
	}
	select {
	case d.errands <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// act does one thing about a ride, after about a while.
func (d *demoRides) act(ctx context.Context, ride *starlingv1.Ride, action starlingv1.DriverAction, after time.Duration) error {
	if err := retry.Sleep(ctx, after/2+rand.N(after)); err != nil {
		return err
	}
	_, err := d.service.ActOnRide(ctx, &starlingv1.ActOnRideRequest{Name: ride.Name, Vehicle: ride.Vehicle, Attempt: ride.Attempt, Action: action})
	return err
}

func (d *demoRides) moved(from, to starlingv1.RidePhase) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if from != starlingv1.RidePhase_RIDE_PHASE_UNSPECIFIED {
		d.phases[from]--
	}
	d.phases[to]++
}

// counts returns how many rides are in each phase, by its name.
func (d *demoRides) counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := map[string]int{}
	for p, n := range d.phases {
		if n > 0 {
			counts[phaseName(p)] = n
		}
	}
	return counts
}

// line is the rides by phase, in the order of a ride's life.
func (d *demoRides) line() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var parts []string
	for p := starlingv1.RidePhase_RIDE_PHASE_SEARCHING; p <= starlingv1.RidePhase_RIDE_PHASE_VEHICLE_LOST; p++ {
		if n := d.phases[p]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, phaseName(p)))
		}
	}
	if len(parts) == 0 {
		return "none yet"
	}
	return strings.Join(parts, ", ")
}
