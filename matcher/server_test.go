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

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/geo"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

func names(r *starlingv1.SearchNearestResponse) []string {
	var out []string
	for _, n := range r.Results {
		out = append(out, strings.TrimPrefix(n.Vehicle.Name, "vehicles/"))
	}
	return out
}

func TestSearchNearest(t *testing.T) {
	w := newWorld(t)
	v := w.at("van", 10, 20)
	v.DeviceTimeMS -= 1500
	v.SpeedMPS, v.HasSpeed, v.HeadingDeg, v.HasHeading = 12.5, true, 270, true
	v.VarEastM2, v.CovEastNorthM2, v.VarNorthM2 = 5, 4, 5
	v.Verdict, v.Cell = starlingv1.Verdict_VERDICT_ACCEPTED, 0x8928308280fffff
	v.HasAttributes, v.Attributes = true, wire.Attributes{Type: "van", Seats: 8, Tags: []string{"pets"}}
	v.Counts = wire.FixCounts{Accepted: 9, Duplicate: 1, Conflict: 2, Late: 3}
	w.report(v)
	w.report(w.at("near", 10.001, 20))
	w.report(w.at("far", -80, 20))
	silent := w.at("silent", 10, 20)
	silent.DeviceTimeMS = 0 // has no position
	w.report(silent)
	w.tickAll()
	s := w.startReady()

	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 10, Longitude: 20}})
	require.NoError(t, err)
	require.Equal(t, []string{"van", "near", "far"}, names(r))
	require.Empty(t, r.StalePartitions)
	require.Zero(t, r.Results[0].DistanceM)
	require.Equal(t, geo.DistanceDeg(10, 20, 10.001, 20), r.Results[1].DistanceM)

	van := r.Results[0].Vehicle
	require.EqualValues(t, startMS-1500, van.DeviceTime.AsTime().UnixMilli())
	require.EqualValues(t, startMS, van.SeenTime.AsTime().UnixMilli())
	require.Equal(t, 1500*time.Millisecond, van.Age.AsDuration())
	require.Equal(t, []any{10.0, 20.0, float32(5), float32(4), float32(5)},
		[]any{van.Position.Latitude, van.Position.Longitude, van.Position.VarEastM2, van.Position.CovEastNorthM2, van.Position.VarNorthM2})
	require.InDelta(t, 3*math.Sqrt(5.991464547), van.Position.UncertaintyRadiusM, 1e-5)
	require.Equal(t, float32(12.5), *van.SpeedMps)
	require.Equal(t, float32(270), *van.HeadingDeg)
	require.Equal(t, "8928308280fffff", van.H3Cell)
	require.Equal(t, starlingv1.Verdict_VERDICT_ACCEPTED, van.Verdict)
	require.Equal(t, starlingv1.Availability_AVAILABILITY_FREE, van.Availability)
	require.Equal(t, "van", van.Attributes.Type)
	require.EqualValues(t, 8, van.Attributes.Seats)
	require.Equal(t, []string{"pets"}, van.Attributes.Tags)
	require.Equal(t, []int64{9, 1, 2, 3}, []int64{van.FixCounts.Accepted, van.FixCounts.Duplicate, van.FixCounts.Conflict, van.FixCounts.Late})
	require.Nil(t, r.Results[1].Vehicle.SpeedMps)
	require.Nil(t, r.Results[1].Vehicle.HeadingDeg)
	require.Nil(t, r.Results[1].Vehicle.Attributes)

	one, err := get(s, "silent")
	require.NoError(t, err)
	require.Nil(t, one.Position)
	require.Nil(t, one.DeviceTime)
	require.Nil(t, one.Age)
}

func TestSearchBounds(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		lat, lon := geo.Destination(10, 20, 90, float64(i)*100)
		w.report(w.at(fmt.Sprintf("v%02d", i), lat, lon))
	}
	s := w.startReady()
	place := &starlingv1.Place{Latitude: 10, Longitude: 20}
	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: place})
	require.NoError(t, err)
	require.Len(t, r.Results, 10, "the default")
	r, err = s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: place, MaxResults: 1000, RadiusM: 550})
	require.NoError(t, err)
	require.Equal(t, []string{"v00", "v01", "v02", "v03", "v04", "v05"}, names(r))
}

func TestSearchFilters(t *testing.T) {
	w := newWorld(t)
	add := func(id string, a starlingv1.Availability, kind string, seats int32, ageMS int64, tags ...string) {
		v := w.at(id, 1, 1)
		v.Availability, v.DeviceTimeMS = a, v.DeviceTimeMS-ageMS
		v.HasAttributes, v.Attributes = true, wire.Attributes{Type: kind, Seats: seats, Tags: tags}
		w.report(v)
	}
	const free, ride = starlingv1.Availability_AVAILABILITY_FREE, starlingv1.Availability_AVAILABILITY_ON_RIDE
	add("a", free, "van", 8, 0, "pets", "quiet")
	add("b", free, "car", 4, 0, "pets")
	add("c", ride, "van", 4, 0)
	add("d", free, "bike", 0, 30_000)
	add("ahead", free, "bike", 0, -5000)
	s := w.startReady()
	for want, f := range map[string]*starlingv1.VehicleFilter{
		"a ahead b c d":  {},
		"a ahead b d":    {Availabilities: []starlingv1.Availability{free}},
		"a c":            {Types: []string{"van"}},
		"a b c":          {Types: []string{"van", "car"}},
		"a b c ":         {MinSeats: 4},
		"a":              {Tags: []string{"pets", "quiet"}},
		"a b":            {Tags: []string{"pets"}},
		"a ahead b c":    {MaxAge: durationpb.New(29 * time.Second)},
		"a ahead b c d ": {MaxAge: durationpb.New(30 * time.Second)},
		"":               {Types: []string{"van"}, Tags: []string{"wheelchair"}},
		"c":              {Types: []string{"van"}, Availabilities: []starlingv1.Availability{ride}, MinSeats: 4},
	} {
		r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 1, Longitude: 1}, Filter: f})
		require.NoError(t, err)
		require.Equal(t, strings.Fields(want), append([]string{}, names(r)...), "%v", f)
	}
	// Ages are never negative.
	v, err := get(s, "ahead")
	require.NoError(t, err)
	require.Zero(t, v.Age.AsDuration())
}

func TestStalePartitionsAreNamed(t *testing.T) {
	w := newWorld(t)
	w.report(w.at("a", 1, 1))
	p := partitionOf("a")
	s := w.startReady()
	stale := func() []int32 {
		r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
		require.NoError(t, err)
		var out []int32
		for _, sp := range r.StalePartitions {
			out = append(out, sp.Partition)
		}
		return out
	}
	require.Empty(t, stale(), "the other partitions are empty")
	w.tickAll()
	s.eventually(func() bool { return s.metric("records_total") == 5 })
	w.pass(5 * time.Second)
	require.Empty(t, stale())
	w.pass(time.Millisecond)
	require.Equal(t, []int32{0, 1, 2, 3}, stale())
	list, err := s.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)
	require.Len(t, list.StalePartitions, 4)
	require.Equal(t, 5001*time.Millisecond, list.StalePartitions[p].Behind.AsDuration())
	w.tick(p)
	s.eventually(func() bool { return !slices.Contains(stale(), p) })
	require.EqualValues(t, 3, s.metric("stale_partitions"))
	alarmtest.Raised(t, s.registry, "starling_matcher_stale_partitions")
}

func TestStaleBeforeAnyClock(t *testing.T) {
	w := newWorld(t)
	// All that partition 1 ever had was deleted: who knows what it holds.
	w.tick(1)
	w.store.Truncate("tracks", 1, 1)
	s := w.startReady()
	r, err := s.SearchNearest(ctx, &starlingv1.SearchNearestRequest{Place: &starlingv1.Place{}})
	require.NoError(t, err)
	require.Len(t, r.StalePartitions, 1)
	require.EqualValues(t, 1, r.StalePartitions[0].Partition)
	require.Nil(t, r.StalePartitions[0].Behind)
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	place := &starlingv1.Place{Latitude: 1, Longitude: 1}
	search := func(change func(*starlingv1.SearchNearestRequest)) error {
		req := &starlingv1.SearchNearestRequest{Place: place, Filter: &starlingv1.VehicleFilter{}}
		change(req)
		_, err := s.SearchNearest(ctx, req)
		return err
	}
	list := func(req *starlingv1.ListVehiclesRequest) error {
		_, err := s.ListVehicles(ctx, req)
		return err
	}
	watch := func(name string) error {
		stream, err := s.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: name})
		require.NoError(t, err)
		_, err = stream.Recv()
		return err
	}
	named := func(name string) error {
		_, err := s.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: name})
		return err
	}
	type req = starlingv1.SearchNearestRequest
	for i, c := range []struct {
		field string
		err   error
	}{
		{"place", search(func(r *req) { r.Place = nil })},
		{"place.latitude", search(func(r *req) { r.Place = &starlingv1.Place{Latitude: math.NaN()} })},
		{"place.latitude", search(func(r *req) { r.Place = &starlingv1.Place{Latitude: 90.1} })},
		{"place.longitude", search(func(r *req) { r.Place = &starlingv1.Place{Longitude: -181} })},
		{"place.longitude", search(func(r *req) { r.Place = &starlingv1.Place{Longitude: math.Inf(1)} })},
		{"max_results", search(func(r *req) { r.MaxResults = -1 })},
		{"max_results", search(func(r *req) { r.MaxResults = 1001 })},
		{"radius_m", search(func(r *req) { r.RadiusM = -1 })},
		{"radius_m", search(func(r *req) { r.RadiusM = math.NaN() })},
		{"radius_m", search(func(r *req) { r.RadiusM = math.Inf(1) })},
		{"filter.availabilities", search(func(r *req) { r.Filter.Availabilities = []starlingv1.Availability{0} })},
		{"filter.availabilities", search(func(r *req) { r.Filter.Availabilities = []starlingv1.Availability{9} })},
		{"filter.availabilities", search(func(r *req) { r.Filter.Availabilities = []starlingv1.Availability{-1} })},
		{"filter.types", search(func(r *req) { r.Filter.Types = []string{""} })},
		{"filter.types", search(func(r *req) { r.Filter.Types = make([]string, 101) })},
		{"filter.tags", search(func(r *req) { r.Filter.Tags = []string{strings.Repeat("x", 33)} })},
		{"filter.min_seats", search(func(r *req) { r.Filter.MinSeats = -1 })},
		{"filter.min_seats", search(func(r *req) { r.Filter.MinSeats = 1001 })},
		{"filter.max_age", search(func(r *req) { r.Filter.MaxAge = durationpb.New(0) })},
		{"filter.max_age", search(func(r *req) { r.Filter.MaxAge = &durationpb.Duration{Seconds: 1, Nanos: -1} })},
		{"page_size", list(&starlingv1.ListVehiclesRequest{PageSize: -1})},
		{"page_size", list(&starlingv1.ListVehiclesRequest{PageSize: 10_001})},
		{"page_token", list(&starlingv1.ListVehiclesRequest{PageToken: "abc"})},
		{"page_token", list(&starlingv1.ListVehiclesRequest{PageToken: "not base64!"})},
		{"name", named("a")},
		{"name", named("vehicles/")},
		{"name", named("vehicles/a b")},
		{"name", named("vehicles/" + strings.Repeat("x", 65))},
		{"name", watch("rides/a")},
	} {
		require.Equal(t, codes.InvalidArgument, status.Code(c.err), "case %d, %s", i, c.field)
		violations := detail[*errdetails.BadRequest](t, c.err).FieldViolations
		require.Equal(t, c.field, violations[0].Field, "case %d", i)
		require.NotEmpty(t, violations[0].Description)
		require.Equal(t, "INVALID_REQUEST", detail[*errdetails.ErrorInfo](t, c.err).Reason)
	}
	err := search(func(r *req) { r.RadiusM, r.MaxResults = -1, -1 })
	require.Len(t, detail[*errdetails.BadRequest](t, err).FieldViolations, 2, "all faults at once")
}

func TestNotFound(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	_, err := get(s, "nobody")
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Equal(t, "vehicles/nobody", detail[*errdetails.ResourceInfo](t, err).ResourceName)
	require.Equal(t, "VEHICLE_NOT_FOUND", detail[*errdetails.ErrorInfo](t, err).Reason)
}

// walk lists the fleet page by page.
func walk(t *testing.T, s *service, size int32, between func()) (out []string) {
	token := ""
	for {
		r, err := s.ListVehicles(ctx, &starlingv1.ListVehiclesRequest{PageSize: size, PageToken: token})
		require.NoError(t, err)
		for _, v := range r.Vehicles {
			out = append(out, v.Name)
		}
		if token = r.NextPageToken; token == "" {
			return out
		}
		between()
	}
}

func TestListVehicles(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 95 {
		id := fmt.Sprint("v", i)
		w.report(w.at(id, float64(i)/2, 1))
		want = append(want, "vehicles/"+id)
	}
	slices.Sort(want)
	s := w.startReady()
	for _, size := range []int32{0, 1, 10, 94, 95, 96} {
		require.Equal(t, want, walk(t, s, size, func() {}), "page size %d", size)
	}
	// Movement, arrivals and departures between pages do not disturb those who
	// stay.
	n := 0
	got := walk(t, s, 10, func() {
		n++
		w.report(w.at("v5", 50, 50))
		w.report(w.at(fmt.Sprint("new", n), 1, 1))
		due := w.next(partitionOf("v94"))
		due.Fired = []wire.Fired{{VehicleID: "v94", Forgotten: true}}
		w.append(partitionOf("v94"), due)
	})
	require.True(t, slices.IsSorted(got))
	stayed := slices.DeleteFunc(slices.Clone(got), func(n string) bool { return strings.Contains(n, "new") || n == "vehicles/v94" })
	require.Equal(t, slices.DeleteFunc(want, func(n string) bool { return n == "vehicles/v94" }), stayed)
}

func TestListVehiclesKeepsPagesSmall(t *testing.T) {
	w := newWorld(t)
	const n = 6000
	tags := make([]string, 16)
	for i := range tags {
		tags[i] = strings.Repeat(string(rune('a'+i)), 32)
	}
	for i := range n {
		v := w.at(fmt.Sprintf("v%04d", i), 1, 1)
		v.HasAttributes, v.Attributes = true, wire.Attributes{Tags: tags}
		w.report(v)
	}
	s := w.startReady()
	require.Len(t, walk(t, s, 10_000, func() {}), n)
}

func TestWatchVehicle(t *testing.T) {
	w := newWorld(t)
	s := w.startReady()
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := s.WatchVehicle(soon, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	recv := func() *starlingv1.WatchVehicleResponse {
		t.Helper()
		r, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "vehicles/a", r.Vehicle.Name)
		return r
	}
	require.True(t, recv().Unknown)
	w.report(w.at("a", 1, 1))
	r := recv()
	require.False(t, r.Unknown)
	require.Equal(t, 1.0, r.Vehicle.Position.Latitude)
	require.False(t, r.Stale)
	w.report(w.at(sibling("a"), 3, 3)) // not watched
	w.report(w.at("a", 2, 2))
	require.Equal(t, 2.0, recv().Vehicle.Position.Latitude)
	w.pass(time.Minute)
	require.True(t, recv().Stale)
	w.tick(partitionOf("a"))
	require.False(t, recv().Stale)
	due := w.next(partitionOf("a"))
	due.Fired = []wire.Fired{{VehicleID: "a", Forgotten: true}}
	w.append(partitionOf("a"), due)
	require.True(t, recv().Unknown)
	w.report(w.at("a", 4, 4))
	require.Equal(t, 4.0, recv().Vehicle.Position.Latitude)

	s.stop()
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// TestSlowWatcherGetsTheNewest lets a client read nothing while its vehicle
// changes many more times than gRPC can buffer, then counts what it is sent.
func TestSlowWatcherGetsTheNewest(t *testing.T) {
	w := newWorld(t)
	v := w.at("a", 0, 1)
	tags := make([]string, 16)
	for i := range tags {
		tags[i] = strings.Repeat("x", 2000) // fills the windows sooner
	}
	v.HasAttributes, v.Attributes = true, wire.Attributes{Tags: tags}
	w.report(v)
	s := w.startReady()
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := s.WatchVehicle(soon, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
	require.NoError(t, err)
	const changes = 3000
	for i := 1; i <= changes; i++ {
		v.LatDeg = float64(i) / changes
		v.DeviceTimeMS++
		w.report(v)
	}
	s.seen("a", v.DeviceTimeMS)
	last, received := -1.0, 0
	for last < 1 {
		r, err := stream.Recv()
		require.NoError(t, err)
		require.Greater(t, r.Vehicle.Position.Latitude, last, "never back in time")
		last = r.Vehicle.Position.Latitude
		received++
	}
	require.Less(t, received, changes/2, "changes were queued")
}

func TestTooManyWatchers(t *testing.T) {
	w := newWorld(t)
	s := w.startReady(func(c *matcher.Config) { c.MaxWatchers = 2 })
	open := func() (starlingv1.FleetService_WatchVehicleClient, error) {
		stream, err := s.WatchVehicle(ctx, &starlingv1.WatchVehicleRequest{Name: "vehicles/a"})
		require.NoError(t, err)
		_, err = stream.Recv()
		return stream, err
	}
	for range 2 {
		_, err := open()
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, s.metric("watchers"))
	_, err := open()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Positive(t, detail[*errdetails.RetryInfo](t, err).RetryDelay.AsDuration())
}
