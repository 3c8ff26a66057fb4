package fanout_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber/h3-go/v4"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

var ctx = context.Background()

// scenario is a fleet around borders, the matchers of three regions that read at
// their own paces, a fan-out before them, and a matcher that knows everything.
type scenario struct {
	*world
	rng    *rand.Rand
	middle h3.LatLng
	gates  []*gate // of the regions; the last is the whole fleet's
	fan    starlingv1.FleetServiceClient
	whole  starlingv1.FleetServiceClient
	fleet  []string
	ends   []end
}

// end is what was in the log at a moment.
type end struct {
	ms   int64
	next [partitions]int64
}

func newScenario(t *testing.T, seed uint64, middle h3.LatLng) *scenario {
	r := &scenario{world: newWorld(t), rng: rand.New(rand.NewPCG(seed, 7)), middle: middle}
	// Cells of some 45 km across, of which one is cut into finer ones.
	centre, err := h3.LatLngToCell(middle, 4)
	require.NoError(t, err)
	around, err := centre.GridDisk(1)
	require.NoError(t, err)
	finer, err := centre.Children(5)
	require.NoError(t, err)
	var lists [2][]h3.Cell
	around = slices.DeleteFunc(around, func(c h3.Cell) bool { return c == centre })
	for i, cell := range append(finer, around...) {
		side := i % 2
		if i > 1 {
			if side = r.rng.IntN(3); side == 2 {
				continue // the rest's
			}
		}
		lists[side] = append(lists[side], cell)
	}
	regions := []string{"a=" + list(lists[0]), "b=" + list(lists[1]), "c=rest"}
	n := &network{}
	for i, name := range []string{"a", "b", "c", ""} {
		g, _ := r.matcher(n, fmt.Sprintf("127.0.0.1:%d", i+1), name, regions[:min(3, 3*len(name))])
		r.gates = append(r.gates, g)
	}
	r.fan = r.fanout(n, regions, "a=127.0.0.1:1", "b=127.0.0.1:2", "c=127.0.0.1:3")
	r.whole = n.client(t, "127.0.0.1:4")
	for i := range 30 {
		r.fleet = append(r.fleet, fmt.Sprintf("v%02d", i))
	}
	return r
}

// somewhere is a place around the middle, most often near a border.
func (r *scenario) somewhere() (latDeg, lonDeg float64) {
	return geo.Destination(r.middle.Lat, r.middle.Lng, r.rng.Float64()*360, r.rng.Float64()*50_000)
}

// step lets time pass and vehicles report.
func (r *scenario) step() {
	for range r.rng.IntN(30) {
		r.pass(time.Duration(r.rng.IntN(150)) * time.Millisecond)
		if n := len(r.ends); n == 0 || r.ends[n-1].ms+500 <= r.nowMS.Load() {
			r.tick()
			r.ends = append(r.ends, end{r.nowMS.Load(), r.next})
		}
		id := r.fleet[r.rng.IntN(len(r.fleet))]
		lat, lon := r.somewhere()
		if last, known := r.last[id]; known && r.rng.IntN(3) > 0 {
			lat, lon = geo.Destination(last.LatDeg, last.LonDeg, r.rng.Float64()*360, r.rng.ExpFloat64()*3000)
		}
		r.report(id, lat, lon, func(v *wire.View) {
			v.SpeedMPS, v.HasSpeed, v.HeadingDeg, v.HasHeading = 20, true, float32(r.rng.IntN(360)), true
			if r.rng.IntN(20) == 0 {
				v.Availability = starlingv1.Availability_AVAILABILITY_OFFLINE
			}
			if len(r.views[id]) == 0 && r.rng.IntN(2) == 0 {
				v.DeviceTimeMS = 0 // has no position yet
			}
		})
	}
	r.tick()
}

// spread lets each matcher read up to somewhere, none so little that it would
// name a partition as stale, and returns the least and the most that any has
// read.
func (r *scenario) spread() (least, most [partitions]int64) {
	var due end
	for _, e := range r.ends {
		if e.ms <= r.nowMS.Load()-3500 {
			due = e
		}
	}
	for i, g := range r.gates[:3] {
		to := g.allowed
		for p := range to {
			from := max(to[p], due.next[p])
			to[p] = from + r.rng.Int64N(r.next[p]-from+1)
			if i == 0 || to[p] < least[p] {
				least[p] = to[p]
			}
			most[p] = max(most[p], to[p])
		}
		g.open(to)
	}
	return least, most
}

// views are those that a vehicle had between two moments; none at first adds an
// unknown one.
func (r *scenario) between(id string, least, most [partitions]int64) (views []wire.View, unknown bool) {
	p := partitionOf(id)
	unknown = true
	for _, one := range r.views[id] {
		switch {
		case one.offset < least[p]:
			views, unknown = []wire.View{one.view}, false
		case one.offset < most[p]:
			views = append(views, one.view)
		}
	}
	return views, unknown
}

// checkNearest asks for the nearest while matchers are not equally far: every
// vehicle must count at one of its views between the least and the most read.
func (r *scenario) checkNearest(least, most [partitions]int64) {
	lat, lon := r.somewhere()
	req := &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: lat, Longitude: lon}, MaxResults: 1 + r.rng.Int32N(12)}
	if r.rng.IntN(2) == 0 {
		req.RadiusM = r.rng.Float64() * 30_000
	}
	answer, err := r.fan.SearchNearest(ctx, req)
	require.NoError(r.t, err)
	require.Empty(r.t, answer.StalePartitions, "else the test shows nothing")
	from := geo.Unit(lat, lon)
	limit := math.Inf(1)
	if req.RadiusM > 0 {
		limit = req.RadiusM
	}
	last, lastName := limit, "vehicles/~"
	if n := len(answer.Results); n == int(req.MaxResults) {
		last, lastName = answer.Results[n-1].DistanceM, answer.Results[n-1].Vehicle.Name
	}
	found := map[string]bool{}
	for i, one := range answer.Results {
		id := one.Vehicle.Name[len("vehicles/"):]
		require.False(r.t, found[id], "%s is there twice", id)
		found[id] = true
		views, _ := r.between(id, least, most)
		require.True(r.t, slices.ContainsFunc(views, func(v wire.View) bool {
			return v.DeviceTimeMS != 0 && geo.Distance(from, geo.Unit(v.LatDeg, v.LonDeg)) == one.DistanceM && v.LatDeg == one.Vehicle.Position.Latitude
		}), "%s was not there", id)
		require.LessOrEqual(r.t, one.DistanceM, limit)
		if i > 0 {
			before := answer.Results[i-1]
			require.True(r.t, before.DistanceM < one.DistanceM || before.DistanceM == one.DistanceM && before.Vehicle.Name < one.Vehicle.Name)
		}
	}
	for _, id := range r.fleet {
		views, unknown := r.between(id, least, most)
		if found[id] || unknown {
			continue
		}
		require.True(r.t, slices.ContainsFunc(views, func(v wire.View) bool {
			d := geo.Distance(from, geo.Unit(v.LatDeg, v.LonDeg))
			return v.DeviceTimeMS == 0 || d > last || d == last && "vehicles/"+id > lastName
		}), "%s is missing: nearer than %v m in all of %d views", id, last, len(views))
	}
}

// checkKnown asks for single vehicles, a list and an area while matchers are not
// equally far: a vehicle that is known all the while is found.
func (r *scenario) checkKnown(least, most [partitions]int64) {
	listed, areas := map[string]bool{}, map[string]bool{}
	req := &starlingv1.ListVehiclesRequest{PageSize: 1 + r.rng.Int32N(30)}
	for first := true; first || req.PageToken != ""; first = false {
		page, err := r.fan.ListVehicles(ctx, req)
		require.NoError(r.t, err)
		require.LessOrEqual(r.t, len(page.Vehicles), int(req.PageSize))
		for _, v := range page.Vehicles {
			require.False(r.t, listed[v.Name])
			listed[v.Name] = true
		}
		req.PageToken = page.NextPageToken
	}
	area, err := r.fan.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: everywhere()})
	require.NoError(r.t, err)
	for _, v := range area.Vehicles {
		areas[v.Name] = true
	}
	require.Len(r.t, area.Vehicles, int(area.TotalCount))
	for _, id := range r.fleet {
		views, unknown := r.between(id, least, most)
		if unknown {
			continue
		}
		require.True(r.t, listed["vehicles/"+id], "%s is not listed", id)
		require.True(r.t, areas["vehicles/"+id] || views[0].DeviceTimeMS == 0, "%s is nowhere", id)
	}
	for range 3 {
		id := r.fleet[r.rng.IntN(len(r.fleet))]
		v, err := r.fan.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/" + id})
		views, unknown := r.between(id, least, most)
		if unknown {
			continue
		}
		require.NoError(r.t, err)
		require.True(r.t, slices.ContainsFunc(views, func(w wire.View) bool { return w.SeenTimeMS == v.SeenTime.AsTime().UnixMilli() }))
	}
}

func everywhere() *starlingv1.Area {
	return &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
		Southwest: &starlingv1.Place{Latitude: -90, Longitude: -180}, Northeast: &starlingv1.Place{Latitude: 90, Longitude: 180},
	}}}
}

// checkSame asks fan-out and whole matcher when all have read everything: their
// answers are equal, to the last byte.
func (r *scenario) checkSame() {
	for _, g := range r.gates {
		g.open(r.next)
	}
	same := func(ask func(starlingv1.FleetServiceClient) (proto.Message, error)) {
		r.t.Helper()
		want, err := ask(r.whole)
		require.NoError(r.t, err)
		got, err := ask(r.fan)
		require.NoError(r.t, err)
		require.True(r.t, proto.Equal(want, got), "want %v\ngot %v", want, got)
	}
	lat, lon := r.somewhere()
	place := &starlingv1.Place{Latitude: lat, Longitude: lon}
	free := &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE}}
	for _, req := range []*starlingv1.SearchNearestRequest{
		{Place: place},
		{Place: place, MaxResults: 1 + r.rng.Int32N(60), RadiusM: r.rng.Float64() * 60_000},
		{Place: place, MaxResults: 5, Predict: true, Filter: free},
		{Place: place, MaxResults: 2, Ranking: starlingv1.Ranking_RANKING_ARRIVAL},
		{Place: place, MaxResults: 3, Area: &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
			Southwest: &starlingv1.Place{Latitude: -90, Longitude: -180}, Northeast: place,
		}}}},
	} {
		same(func(c starlingv1.FleetServiceClient) (proto.Message, error) { return c.SearchNearest(ctx, req) })
	}
	same(func(c starlingv1.FleetServiceClient) (proto.Message, error) {
		return c.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: everywhere(), Filter: free})
	})
	page := 1 + r.rng.Int32N(50)
	same(func(c starlingv1.FleetServiceClient) (proto.Message, error) {
		return c.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: page})
	})
	for _, resolution := range []int32{0, 3, 4, 5, 9} {
		same(func(c starlingv1.FleetServiceClient) (proto.Message, error) {
			return c.CountVehicles(ctx, &starlingv1.CountVehiclesRequest{Selection: &starlingv1.CellSelection{Resolution: resolution}, PageSize: page})
		})
	}
}

// Vehicles cross the borders of three regions all the time, back and forth, while
// the matchers read at their own paces: what the fan-out answers is true of a
// moment between what the slowest and the fastest have read, and equals the
// answer of a matcher that knows the whole fleet when all have caught up.
func TestAnswersAreExactAcrossBorders(t *testing.T) {
	pentagons, err := h3.Pentagons(4)
	require.NoError(t, err)
	pentagon, err := pentagons[3].LatLng()
	require.NoError(t, err)
	for name, middle := range map[string]h3.LatLng{
		"Vienna": {Lat: 48.2, Lng: 16.37}, "antimeridian": {Lat: -16.8, Lng: 180}, "pole": {Lat: 89.9, Lng: 20}, "pentagon": pentagon,
	} {
		t.Run(name, func(t *testing.T) {
			r := newScenario(t, 1, middle)
			for step := range 45 {
				r.step()
				least, most := r.spread()
				for range 3 {
					r.checkNearest(least, most)
				}
				if step%2 == 0 {
					r.checkKnown(least, most)
				}
				if step%12 == 11 {
					r.checkSame()
				}
			}
			require.Greater(t, r.nowMS.Load(), int64(startMS+40_000), "vehicles must have been dropped")
		})
	}
}
