package matcher_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// FuzzFleetCalls sends any bytes as the request of any call to a matcher with a few
// vehicles: what comes back is an answer or names what is wrong with the request,
// and the matcher goes on.
func FuzzFleetCalls(f *testing.F) {
	w := newWorld(f)
	s := w.startReady()
	for _, v := range []struct {
		id       string
		lat, lon float64
	}{{"a", 48, 16}, {"b", 90, 180}, {"c", -90, -180}, {"d", 0, 180}} {
		w.report(w.at(v.id, v.lat, v.lon))
		s.seen(v.id, w.nowMS.Load())
	}
	calls := fleettest.Calls(s)
	encoded := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	ring := &starlingv1.Area{Shape: &starlingv1.Area_Polygon{Polygon: &starlingv1.Polygon{Vertices: []*starlingv1.Place{{Latitude: 47}, {Latitude: 49, Longitude: 170}, {Longitude: -170}}}}}
	cells := &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: []string{"841e149ffffffff", "8f1e14900000000"}}}}
	f.Add(byte(0), encoded(&starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 48, Longitude: 16}, MaxResults: 3, Area: ring, Filter: &starlingv1.VehicleFilter{Tags: []string{"x"}, Dispatchable: true}}))
	f.Add(byte(1), encoded(&starlingv1.SearchAreaRequest{Area: cells, MaxResults: 1}))
	f.Add(byte(2), encoded(&starlingv1.GetVehicleRequest{Name: "vehicles/a"}))
	f.Add(byte(3), encoded(&starlingv1.ListVehiclesRequest{PageSize: 1, PageToken: "MjphAA"}))
	f.Add(byte(4), encoded(&starlingv1.CountVehiclesRequest{Selection: &starlingv1.CellSelection{Resolution: 5, WithinH3Cells: []string{"841e149ffffffff"}}, PageToken: "Mjp4"}))
	f.Add(byte(5), encoded(&starlingv1.WatchVehicleRequest{Name: "vehicles/a", ResumeToken: "AQ"}))
	f.Add(byte(6), encoded(&starlingv1.WatchAreaRequest{Area: ring, ResumeToken: "AgAAAAAAAAAA"}))
	f.Add(byte(7), encoded(&starlingv1.WatchVehicleCountsRequest{Selection: &starlingv1.CellSelection{Resolution: 15}}))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		switch err := calls[int(which)%len(calls)](ctx, b); status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.ResourceExhausted:
		default:
			t.Fatal(err)
		}
		if _, err := s.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/a"}); err != nil {
			t.Fatalf("the matcher is not what it was: %v", err)
		}
	})
}
