package fanout_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// pair is two regions with their matchers and a fan-out before them: west is a
// cell around latitude 48.2, longitude 16.37, of some 45 km across.
type pair struct {
	*world
	n          *network
	regions    []string
	west, east *gate
	stopWest   func()
	fan        starlingv1.FleetServiceClient
}

const (
	westAddress, eastAddress = "127.0.0.1:1", "127.0.0.1:2"
	atWest, atEast           = 16.37, 17.5 // longitudes
	lat                      = 48.2
)

func newPair(t *testing.T) *pair {
	cell, err := h3.LatLngToCell(h3.LatLng{Lat: lat, Lng: atWest}, 4)
	require.NoError(t, err)
	p := &pair{world: newWorld(t), n: &network{}, regions: []string{"west=" + cell.String(), "east=rest"}}
	p.west, p.stopWest = p.matcher(p.n, westAddress, "west", p.regions)
	p.east, _ = p.matcher(p.n, eastAddress, "east", p.regions)
	p.fan = p.fanout(p.n, p.regions, "west="+westAddress, "east="+eastAddress)
	return p
}

// read lets the matchers read all there is.
func (p *pair) read(gates ...*gate) {
	for _, g := range gates {
		g.open(p.next)
	}
}

func nearest(lonDeg float64) *starlingv1.SearchNearestRequest {
	return &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: lat, Longitude: lonDeg}}
}

func reason(t *testing.T, err error) *errdetails.ErrorInfo {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	require.FailNow(t, "no ErrorInfo", "%v", err)
	return nil
}

// What a matcher is behind with is named, and a vehicle is not answered as
// unknown because of it.
func TestASlowMatcherIsNamed(t *testing.T) {
	p := newPair(t)
	p.report("van", lat, atWest)
	p.tick()
	p.read(p.west, p.east)
	answer, err := p.fan.SearchNearest(ctx, nearest(atWest))
	require.NoError(t, err)
	require.Len(t, answer.Results, 1)
	require.Empty(t, answer.StalePartitions)

	p.report("van", lat, atEast)
	for range 40 { // longer than the grace
		p.pass(time.Second)
		p.tick()
	}
	p.read(p.west) // and not the eastern one, which the van has gone to
	answer, err = p.fan.SearchNearest(ctx, nearest(atEast))
	require.NoError(t, err)
	require.Empty(t, answer.Results, "the western matcher has dropped it")
	require.Len(t, answer.StalePartitions, partitions)
	require.Equal(t, 40*time.Second, answer.StalePartitions[0].Behind.AsDuration())
	_, err = p.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/van"})
	require.Equal(t, codes.Unavailable, status.Code(err), "it is not unknown")
	require.Contains(t, err.Error(), "is stale")

	p.read(p.east)
	answer, err = p.fan.SearchNearest(ctx, nearest(atEast))
	require.NoError(t, err)
	require.Len(t, answer.Results, 1)
	require.Empty(t, answer.StalePartitions)
	_, err = p.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/nobody"})
	require.Equal(t, codes.NotFound, status.Code(err))
}

// A matcher holds who is in its region and who has left for less than the grace.
func TestWhatAMatcherKeeps(t *testing.T) {
	p := newPair(t)
	earth, err := region.Parse(p.regions)
	require.NoError(t, err)
	keeps := func(address string, number int) (names []string) {
		p.read(p.west, p.east)
		labelled := metadata.AppendToOutgoingContext(ctx, region.Header, earth.Label(number))
		answer, err := p.n.client(t, address).ListVehicles(labelled, &starlingv1.ListVehiclesRequest{})
		require.NoError(t, err)
		for _, v := range answer.Vehicles {
			names = append(names, v.Name[len("vehicles/"):])
		}
		return names
	}
	p.report("east", lat, atEast)
	p.report("west", lat, atWest)
	p.report("nowhere", lat, atWest, func(v *wire.View) { v.DeviceTimeMS = 0 })
	require.Equal(t, []string{"nowhere", "west"}, keeps(westAddress, 0))
	require.Equal(t, []string{"east", "nowhere"}, keeps(eastAddress, 1))
	p.report("west", lat, atEast)
	p.report("nowhere", lat, atEast)
	p.pass(29 * time.Second)
	p.report("west", lat, atEast+0.1) // followed, which does not make the grace longer
	p.tick()
	require.Equal(t, []string{"nowhere", "west"}, keeps(westAddress, 0))
	require.Equal(t, []string{"east", "nowhere", "west"}, keeps(eastAddress, 1))
	p.pass(time.Second)
	p.tick()
	require.Empty(t, keeps(westAddress, 0))
	p.report("west", lat, atWest)
	p.report("east", lat, atWest)
	p.report("east", lat, atEast) // back before its grace is over: it stays
	p.pass(31 * time.Second)
	p.tick()
	require.Equal(t, []string{"west"}, keeps(westAddress, 0))
	require.Equal(t, []string{"east", "nowhere"}, keeps(eastAddress, 1))
}

// A matcher that starts keeps those who left its region shortly before, too.
func TestAMatcherThatStartsKnowsWhoHasLeft(t *testing.T) {
	p := newPair(t)
	p.report("van", lat, atWest)
	p.report("car", lat, atWest)
	p.pass(10 * time.Second)
	p.report("car", lat, atEast)
	p.pass(25 * time.Second)
	p.report("van", lat, atEast)
	p.pass(10 * time.Second)
	p.tick()
	p.stopWest()
	p.matcher(p.n, westAddress, "west", p.regions)
	earth, err := region.Parse(p.regions)
	require.NoError(t, err)
	labelled := metadata.AppendToOutgoingContext(ctx, region.Header, earth.Label(0))
	answer, err := p.n.client(t, westAddress).ListVehicles(labelled, &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)
	require.Len(t, answer.Vehicles, 1)
	require.Equal(t, "vehicles/van", answer.Vehicles[0].Name)
}

// Only a caller that names the region it is asks a matcher of one.
func TestARegionIsNotMistakenForTheFleet(t *testing.T) {
	p := newPair(t)
	direct := p.n.client(t, westAddress)
	_, err := direct.SearchNearest(ctx, nearest(atWest))
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Equal(t, "REGION_MISMATCH", reason(t, err).Reason)
	stream, err := direct.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.FailedPrecondition, status.Code(err))

	// A fan-out with another map of regions has no answer from it.
	other, err := h3.LatLngToCell(h3.LatLng{Lat: 10, Lng: 10}, 4)
	require.NoError(t, err)
	fan := p.fanout(p.n, []string{"west=" + other.String(), "east=rest"}, "west="+westAddress, "east="+eastAddress)
	_, err = fan.SearchNearest(ctx, nearest(atWest))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, err.Error(), "let all processes have the same matcher.regions")
}

// A region without a matcher fails the searches that need it, and no others;
// with another replica none.
func TestAMissingMatcherIsNamed(t *testing.T) {
	p := newPair(t)
	p.report("van", lat, atEast)
	p.report("car", lat, atWest)
	p.read(p.west, p.east)
	p.stopWest()
	_, err := p.fan.SearchNearest(ctx, nearest(atWest))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, map[string]string{"region": "west"}, reason(t, err).Metadata)
	alarmtest.Raised(t, p.metrics, "starling_fanout_failed_total")
	far := nearest(atEast + 10)
	far.RadiusM = 100_000
	_, err = p.fan.SearchNearest(ctx, far)
	require.NoError(t, err, "the region is far away")
	v, err := p.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/van"})
	require.NoError(t, err, "the east knows it")
	require.Equal(t, "vehicles/van", v.Name)
	for _, ask := range []func() error{
		func() error {
			_, err := p.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/car"})
			return err
		},
		func() error { _, err := p.fan.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{}); return err },
		func() error {
			_, err := p.fan.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: everywhere()})
			return err
		},
		func() error { _, err := p.fan.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{}); return err },
		func() error {
			stream, err := p.fan.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: everywhere()})
			require.NoError(t, err)
			_, err = stream.Recv()
			return err
		},
	} {
		err := ask()
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Equal(t, "west", reason(t, err).Metadata["region"], "%v", err)
	}
}

func TestReplicasStandInForEachOther(t *testing.T) {
	p := newPair(t)
	second, _ := p.matcher(p.n, "127.0.0.1:4", "west", p.regions)
	fan := p.fanout(p.n, p.regions, "west=127.0.0.1:3", "west="+westAddress, "west=127.0.0.1:4", "east="+eastAddress) // the first is not there
	p.report("van", lat, atWest)
	p.read(p.west, p.east, second)
	p.stopWest()
	for range 6 { // whichever comes first
		answer, err := fan.SearchNearest(ctx, nearest(atWest))
		require.NoError(t, err)
		require.Len(t, answer.Results, 1)
		stream, err := fan.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/van"})
		require.NoError(t, err)
		first, err := stream.Recv()
		require.NoError(t, err)
		require.False(t, first.Unknown)
	}
}

func TestBadRequestsAreTheMatchersToRefuse(t *testing.T) {
	p := newPair(t)
	for _, req := range []*starlingv1.SearchNearestRequest{
		{},
		{Place: &starlingv1.Place{Latitude: 91}},
		{Place: &starlingv1.Place{}, MaxResults: 1001},
		{Place: &starlingv1.Place{}, MaxResults: -1, Ranking: starlingv1.Ranking_RANKING_ARRIVAL},
		{Place: &starlingv1.Place{}, RadiusM: -1},
	} {
		_, err := p.fan.SearchNearest(ctx, req)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", req)
	}
	_, err := p.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "van"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = p.fan.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageToken: "x"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	area, err := p.fan.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: everywhere(), MinInterval: durationpb.New(0)})
	require.NoError(t, err)
	_, err = area.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestWhatIsNotOffered(t *testing.T) {
	p := newPair(t)
	vehicle, err := p.fan.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/van", PlaybackDelay: durationpb.New(time.Minute)})
	require.NoError(t, err)
	_, err = vehicle.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err))
	counts, err := p.fan.WatchVehicleCounts(ctx, &starlingv1.WatchVehicleCountsRequest{})
	require.NoError(t, err)
	_, err = counts.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err))
	require.Equal(t, "NOT_OFFERED", reason(t, err).Reason)
}

// A watch follows its vehicle over the border, forgets nothing and never goes
// back, whichever matcher is ahead.
func TestWatchVehicleAcrossTheBorder(t *testing.T) {
	p := newPair(t)
	stream, err := p.fan.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/van"})
	require.NoError(t, err)
	next := func() *starlingv1.WatchVehicleResponse {
		t.Helper()
		r, err := stream.Recv()
		require.NoError(t, err)
		return r
	}
	require.True(t, next().Unknown)
	lons := []float64{atWest, atWest + 0.01, atEast, atEast + 0.01, atWest, atEast}
	for i, lon := range lons {
		p.pass(10 * time.Second)
		p.report("van", lat, lon)
		p.tick()
		order := []*gate{p.west, p.east}
		if i%2 == 0 {
			slices.Reverse(order)
		}
		p.read(order...)
		for {
			r := next()
			require.False(t, r.Unknown)
			require.False(t, r.Vehicle.SeenTime.AsTime().Before(p.now().Add(-10*time.Second)), "it went back")
			if r.Vehicle.Position.Longitude == lon && !r.Stale {
				break
			}
		}
	}
	// A resume token is honoured by a matcher that knows the vehicle.
	again, err := p.fan.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/van"})
	require.NoError(t, err)
	first, err := again.Recv()
	require.NoError(t, err)
	resumed, err := p.fan.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/van", ResumeToken: first.ResumeToken})
	require.NoError(t, err)
	first, err = resumed.Recv()
	require.NoError(t, err)
	require.True(t, first.Resumed)
}

// A screen that watches an area over the border shows, when all is quiet, what a
// search finds.
func TestWatchAreaAcrossTheBorder(t *testing.T) {
	p := newPair(t)
	for i := range 30 {
		p.report(fmt.Sprint("v", i), lat, atWest+float64(i%3))
	}
	p.read(p.west, p.east)
	area := &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
		Southwest: &starlingv1.Place{Latitude: 48, Longitude: 16}, Northeast: &starlingv1.Place{Latitude: 49, Longitude: 18},
	}}}
	stream, err := p.fan.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: area, MinInterval: durationpb.New(50 * time.Millisecond)})
	require.NoError(t, err)
	shown := map[string]float64{}
	update := func() (snapshot bool) {
		for {
			r, err := stream.Recv()
			require.NoError(t, err)
			for _, v := range r.Changed {
				shown[v.Name] = v.Position.Longitude
			}
			for _, name := range r.Left {
				require.Contains(t, shown, name)
				delete(shown, name)
			}
			if !r.More {
				return r.Snapshot
			}
		}
	}
	require.True(t, update())
	require.Len(t, shown, 20)
	for round := range 4 {
		for i := range 30 {
			p.pass(100 * time.Millisecond)
			p.report(fmt.Sprint("v", i), lat, atWest+float64((i+round)%3)+0.001*float64(round))
		}
		p.read(p.west)
		p.read(p.east)
	}
	answer, err := p.fan.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: area})
	require.NoError(t, err)
	want := map[string]float64{}
	for _, v := range answer.Vehicles {
		want[v.Name] = v.Position.Longitude
	}
	require.Len(t, want, 20)
	require.EqualValues(t, 20, answer.TotalCount)
	for !equal(want, shown) { // or the stream's end, which the test's timeout brings
		require.False(t, update())
	}
}

func equal(a, b map[string]float64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func TestTooManyCalls(t *testing.T) {
	p := newPair(t)
	cfg := fanout.DefaultConfig()
	cfg.Replicas, cfg.MaxWatchers = []string{"west=" + westAddress, "east=" + eastAddress}, 1
	estimator, err := eta.NewGreatCircle(8, 1.3)
	require.NoError(t, err)
	f, err := fanout.New(cfg, fanout.Deps{
		Regions:     p.regions,
		Estimator:   estimator,
		Registerer:  prometheus.NewRegistry(),
		Logger:      slog.New(slog.DiscardHandler),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(p.n.dial)},
	})
	require.NoError(t, err)
	p.run(f.Run)
	server := grpc.NewServer()
	f.Register(server)
	p.n.serve(t, "small", server)
	client := p.n.client(t, "small")
	first, err := client.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	_, err = first.Recv()
	require.NoError(t, err)
	second, err := client.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	_, err = second.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestConfig(t *testing.T) {
	regions := []string{"west=841e149ffffffff", "east=rest"}
	for _, c := range []struct {
		replicas []string
		want     string
	}{
		{nil, "region west has none"},
		{[]string{"west=1.2.3.4:5"}, "region east has none"},
		{[]string{"1.2.3.4:5"}, "must be REGION=HOST:PORT"},
		{[]string{"west=nowhere", "east=1.2.3.4:5"}, "must be REGION=HOST:PORT"},
		{[]string{"north=1.2.3.4:5", "west=1.2.3.4:5", "east=1.2.3.4:5"}, `no region "north"`},
	} {
		cfg := fanout.DefaultConfig()
		cfg.Replicas = c.replicas
		_, err := fanout.New(cfg, fanout.Deps{Regions: regions, Estimator: nil, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, cfg.ValidateFor(regions), c.want)
	}
	cfg := fanout.DefaultConfig()
	cfg.Timeout, cfg.MaxCalls, cfg.MaxWatchers = time.Minute, 0, 0
	for _, field := range []string{"timeout", "max_calls", "max_watchers"} {
		require.ErrorContains(t, cfg.Validate(), field+" is ")
	}

	m := matcher.DefaultConfig()
	m.Region = "west"
	require.ErrorContains(t, m.Validate(), "regions: 0 regions")
	m.Regions = regions
	require.NoError(t, m.Validate())
	m.Region = "north"
	require.ErrorContains(t, m.Validate(), `region is "north": must be one of regions, which has west, east`)
	m.Region, m.RegionGrace = "west", 19*time.Second
	require.ErrorContains(t, m.Validate(), "region_grace is 19s: must be at least 15s longer than stale_after")
	m.RegionGrace, m.RebuildWindow = time.Minute, 110*time.Second
	require.ErrorContains(t, m.Validate(), "rebuild_window is 1m50s: must be 0 or at least twice region_grace")
	m.Region, m.Regions = "", []string{"west=rest", "east=rest"}
	require.ErrorContains(t, m.Validate(), "are both rest")
}
