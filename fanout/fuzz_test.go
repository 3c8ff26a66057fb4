package fanout_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/fleettest"
	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// FuzzFanoutCalls sends any bytes as the request of any call to a fan-out before two
// matchers: what comes back is an answer or names what is wrong with the request, and
// the fan-out goes on. Page tokens it reads and writes itself.
func FuzzFanoutCalls(f *testing.F) {
	w := newWorld(f)
	w.report("a", 48, 16)
	w.report("b", -33, 151)
	regions := []string{"west=841e15dffffffff", "else=rest"}
	n := &network{}
	w.matcher(n, westAddress, "west", regions)
	w.matcher(n, eastAddress, "else", regions)
	c := w.fanout(n, regions, "west="+westAddress, "else="+eastAddress)
	calls := fleettest.Calls(c)
	calls = calls[:len(calls)-1] // a fan-out does not offer WatchVehicleCounts
	encoded := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	cells := &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: []string{"841e15dffffffff", "8f1e14900000000"}}}}
	f.Add(byte(0), encoded(&starlingv1.SearchNearestRequest{Place: &starlingv1.Place{Latitude: 48, Longitude: 16}, MaxResults: 3}))
	f.Add(byte(1), encoded(&starlingv1.SearchAreaRequest{Area: cells, MaxResults: 1}))
	f.Add(byte(2), encoded(&starlingv1.GetVehicleRequest{Name: "vehicles/a"}))
	f.Add(byte(3), encoded(&starlingv1.ListVehiclesRequest{PageSize: 1, PageToken: query.PageToken("a")}))
	f.Add(byte(4), encoded(&starlingv1.CountVehiclesRequest{Selection: &starlingv1.CellSelection{Resolution: 5}, PageToken: query.CountPageToken("851e15dbfffffff")}))
	f.Add(byte(5), encoded(&starlingv1.WatchVehicleRequest{Name: "vehicles/a", ResumeToken: "AQ"}))
	f.Add(byte(6), encoded(&starlingv1.WatchAreaRequest{Area: cells, ResumeToken: "AgAAAAAAAAAA"}))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		switch err := calls[int(which)%len(calls)](ctx, b); status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.ResourceExhausted:
		default:
			t.Fatal(err)
		}
		if _, err := c.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: "vehicles/a"}); err != nil {
			t.Fatalf("the fan-out is not what it was: %v", err)
		}
	})
}
