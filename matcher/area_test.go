package matcher_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// box is the viewport between two corners.
func box(south, west, north, east float64) *starlingv1.Area {
	return &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{
		Southwest: &starlingv1.Place{Latitude: south, Longitude: west}, Northeast: &starlingv1.Place{Latitude: north, Longitude: east},
	}}}
}

func polygon(latLon ...float64) *starlingv1.Area {
	p := &starlingv1.Polygon{}
	for i := 0; i < len(latLon); i += 2 {
		p.Vertices = append(p.Vertices, &starlingv1.Place{Latitude: latLon[i], Longitude: latLon[i+1]})
	}
	return &starlingv1.Area{Shape: &starlingv1.Area_Polygon{Polygon: p}}
}

func cells(c ...string) *starlingv1.Area {
	return &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: c}}}
}

func vehicleNames(vs []*starlingv1.Vehicle) []string {
	out := []string{}
	for _, v := range vs {
		out = append(out, strings.TrimPrefix(v.Name, "vehicles/"))
	}
	return out
}

func TestSearchArea(t *testing.T) {
	w := newWorld(t)
	sf := w.at("sf", 37.7749, -122.4194)
	sf.Cell = 0x89283082803ffff
	w.report(sf)
	w.report(w.at("date", 10, 179.5))
	w.report(w.at("line", 10, -179.5))
	busy := w.at("busy", 37.7, -122.4)
	busy.Availability = starlingv1.Availability_AVAILABILITY_ON_RIDE
	w.report(busy)
	s := w.startReady()
	for _, c := range []struct {
		area *starlingv1.Area
		want string
	}{
		{box(-90, -180, 90, 180), "busy date line sf"},
		{box(0, 179, 20, -179), "date line"},
		{box(0, -179, 20, 179), ""},
		{polygon(37, -123, 37, -122, 38, -122, 38, -123), "busy sf"},
		{polygon(5, 178, 5, -178, 15, -178, 15, 178), "date line"},
		{cells("85283083fffffff"), "sf"},
		{cells("89283082803ffff", "89283082807ffff"), "sf"},
		{cells("89283082807ffff"), ""},
	} {
		r, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: c.area})
		require.NoError(t, err)
		require.Equal(t, strings.Fields(c.want), vehicleNames(r.Vehicles), "%v", c.area)
		require.EqualValues(t, len(r.Vehicles), r.TotalCount)
	}
	r, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(-90, -180, 90, 180), MaxResults: 2})
	require.NoError(t, err)
	require.Equal(t, []string{"busy", "date"}, vehicleNames(r.Vehicles))
	require.EqualValues(t, 4, r.TotalCount)
	free := &starlingv1.VehicleFilter{Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE}}
	r, err = s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(30, -130, 40, -120), Filter: free})
	require.NoError(t, err)
	require.Equal(t, []string{"sf"}, vehicleNames(r.Vehicles))
	near, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 37, Longitude: -122}, Area: box(0, 179, 20, -179)})
	require.NoError(t, err)
	require.Equal(t, []string{"line", "date"}, names(near))
}

func TestBadAreas(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	for i, c := range []struct {
		field string
		area  *starlingv1.Area
	}{
		{"area", nil},
		{"area", &starlingv1.Area{}},
		{"area.viewport", box(10, 0, 5, 0)},
		{"area.viewport.southwest.latitude", box(math.NaN(), 0, 5, 0)},
		{"area.viewport.northeast.longitude", box(0, 0, 5, 181)},
		{"area.viewport.southwest", &starlingv1.Area{Shape: &starlingv1.Area_Viewport{Viewport: &starlingv1.Viewport{}}}},
		{"area.polygon.vertices", polygon(0, 0, 1, 1)},
		{"area.polygon.vertices", polygon(make([]float64, 2002)...)},
		{"area.polygon.vertices[1].latitude", polygon(0, 0, 100, 1, 2, 2)},
		{"area.polygon", polygon(0, 0, 0, 120, 0, -120)},
		{"area.cells.h3_cells", cells()},
		{"area.cells.h3_cells", cells("xyz")},
		{"area.cells.h3_cells", cells("42")},
		{"area.cells.h3_cells", cells(make([]string, 10_001)...)},
	} {
		_, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: c.area})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "case %d", i)
		require.Equal(t, c.field, detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field, "case %d", i)
	}
	_, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(0, 0, 1, 1), MaxResults: -1})
	require.Equal(t, "max_results", detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
	for _, d := range []time.Duration{0, 49 * time.Millisecond, 2 * time.Minute} {
		stream, err := s.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: box(0, 0, 1, 1), MinInterval: durationpb.New(d)})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, "min_interval", detail[*errdetails.BadRequest](t, err).FieldViolations[0].Field)
	}
}

// areaStream is a client of WatchArea: what it shows after the updates so far.
type areaStream struct {
	t      *testing.T
	stream starlingv1.FleetService_WatchAreaClient
	shown  map[string]*starlingv1.Vehicle
	stale  int
}

func watchArea(s *service, t *testing.T, req *starlingv1.WatchAreaRequest) *areaStream {
	req.MinInterval = durationpb.New(50 * time.Millisecond)
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	stream, err := s.WatchArea(soon, req)
	require.NoError(t, err)
	return &areaStream{t: t, stream: stream, shown: map[string]*starlingv1.Vehicle{}}
}

// update receives one update, in all its parts.
func (c *areaStream) update() (snapshot bool) {
	c.t.Helper()
	for {
		r, err := c.stream.Recv()
		require.NoError(c.t, err)
		for _, v := range r.Changed {
			c.shown[v.Name] = v
		}
		for _, n := range r.Left {
			require.Contains(c.t, c.shown, n)
			delete(c.shown, n)
		}
		if !r.More {
			c.stale = len(r.StalePartitions)
			return r.Snapshot
		}
	}
}

func (c *areaStream) names() []string {
	out := []string{}
	for n := range c.shown {
		out = append(out, strings.TrimPrefix(n, "vehicles/"))
	}
	slices.Sort(out)
	return out
}

// until receives updates until the screen shows what it should.
func (c *areaStream) until(ok func() bool) {
	c.t.Helper()
	for !ok() {
		require.False(c.t, c.update(), "a second snapshot")
	}
}

func TestWatchArea(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("in", 1, 1))
	w.report(w.at("out", 20, 20))
	w.tickAll()
	s := w.startReady()
	free := &starlingv1.VehicleFilter{
		Availabilities: []starlingv1.Availability{starlingv1.Availability_AVAILABILITY_FREE},
		MaxAge:         durationpb.New(time.Hour),
	}
	c := watchArea(s, t, &starlingv1.WatchAreaRequest{Area: box(0, 0, 10, 10), Filter: free})
	require.True(t, c.update())
	require.Equal(t, []string{"in"}, c.names())

	shows := func(names ...string) func() bool {
		return func() bool { return slices.Equal(c.names(), names) }
	}
	w.report(w.at("out", 5, 5))
	c.until(shows("in", "out"))
	w.report(w.at("out", 6, 6))
	c.until(func() bool { return c.shown["vehicles/out"].Position.Latitude == 6 })
	w.report(w.at("out", 50, 50))
	c.until(shows("in"))
	busy := w.at("in", 1, 1)
	busy.Availability = starlingv1.Availability_AVAILABILITY_RESERVED
	w.report(busy)
	c.until(shows())
	w.report(w.at("in", 1, 1))
	w.report(w.at("new", 2, 2))
	c.until(shows("in", "new"))
	due := w.next(partitionOf("new"))
	due.Fired = []wire.Fired{{VehicleID: "new", Forgotten: true}}
	w.append(partitionOf("new"), due)
	c.until(shows("in"))
	require.Zero(t, c.stale)
	w.pass(time.Minute)
	c.until(func() bool { return c.stale == partitions })
	w.pass(time.Hour)
	c.until(shows()) // too old
	require.EqualValues(t, 1, s.metric("area_watchers"))

	s.stop()
	_, err := c.stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// TestWatchAreaFollowsEveryChange compares a screen with a search after a storm
// of changes, which a slow client sees in few updates.
func TestWatchAreaFollowsEveryChange(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	c := watchArea(s, t, &starlingv1.WatchAreaRequest{Area: box(0, 0, 10, 10)})
	require.True(t, c.update())
	const vehicles, rounds = 200, 20
	for round := range rounds {
		for i := range vehicles {
			w.report(w.at(fmt.Sprint("v", i), float64((i*7+round*3)%20), float64((i+round)%12)))
		}
		w.pass(time.Millisecond)
	}
	s.eventually(func() bool { return s.metric("records_total") == vehicles*rounds })
	r, err := s.SearchArea(ctx, &starlingv1.SearchAreaRequest{Area: box(0, 0, 10, 10)})
	require.NoError(t, err)
	require.NotEmpty(t, r.Vehicles)
	updates := 0
	c.until(func() bool {
		updates++
		if !slices.Equal(c.names(), sorted(vehicleNames(r.Vehicles))) {
			return false
		}
		for _, v := range r.Vehicles {
			if c.shown[v.Name].DeviceTime.AsTime() != v.DeviceTime.AsTime() {
				return false
			}
		}
		return true
	})
	require.Less(t, updates, vehicles*rounds/10)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func TestWatchAreaInParts(t *testing.T) {
	w := newWorld(t)
	const n = 6000
	tags := make([]string, 16)
	for i := range tags {
		tags[i] = strings.Repeat(string(rune('a'+i)), 32)
	}
	for i := range n {
		v := w.at(fmt.Sprint("v", i), 1, 1)
		v.HasAttributes, v.Attributes = true, wire.Attributes{Tags: tags}
		w.report(v)
	}
	s := w.startReady()
	c := watchArea(s, t, &starlingv1.WatchAreaRequest{Area: box(0, 0, 2, 2)})
	require.True(t, c.update())
	require.Len(t, c.shown, n)
}

func TestWatchAreaLimits(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.report(w.at(fmt.Sprint("v", i), 1, 1))
	}
	s := w.startReady(func(c *matcher.Config) { c.MaxWatchers, c.MaxAreaVehicles = 1, 2 })
	stream, err := s.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: box(0, 0, 2, 2)})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, "AREA_TOO_LARGE", detail[*errdetails.ErrorInfo](t, err).Reason)
	s.eventually(func() bool { return s.metric("area_watchers") == 0 })
	c := watchArea(s, t, &starlingv1.WatchAreaRequest{Area: box(5, 5, 6, 6)})
	require.True(t, c.update())
	stream, err = s.WatchArea(ctx, &starlingv1.WatchAreaRequest{Area: box(5, 5, 6, 6)})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, "TOO_MANY_WATCHERS", detail[*errdetails.ErrorInfo](t, err).Reason)
}
