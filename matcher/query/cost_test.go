package query_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/matcher/query"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// What is cheap in every fleet is never charged, and what is dear is estimated
// within a small factor of what it was measured to cost.
func TestCost(t *testing.T) {
	polygon := &starlingv1.Area{Shape: &starlingv1.Area_Polygon{Polygon: &starlingv1.Polygon{Vertices: make([]*starlingv1.Place, 1000)}}}
	cells := &starlingv1.Area{Shape: &starlingv1.Area_Cells{Cells: &starlingv1.CellSet{H3Cells: make([]string, 10_000)}}}
	for name, c := range map[string]struct {
		req, answer any
		fleet       int
		least, most time.Duration
	}{
		"nearest few":        {&starlingv1.SearchNearestRequest{}, nil, 1e6, 0, time.Millisecond},
		"one vehicle":        {&starlingv1.GetVehicleRequest{}, nil, 1e6, 0, 0},
		"a small area":       {&starlingv1.SearchAreaRequest{MaxResults: 20}, nil, 1e6, 0, time.Millisecond},
		"a list of few":      {&starlingv1.ListVehiclesRequest{PageSize: 10_000}, nil, 100, 0, time.Millisecond},
		"a list of many":     {&starlingv1.ListVehiclesRequest{PageSize: 10_000}, nil, 1e6, 5 * time.Millisecond, 50 * time.Millisecond},
		"largest polygon":    {&starlingv1.SearchAreaRequest{Area: polygon}, nil, 10_000, 2 * time.Millisecond, 20 * time.Millisecond},
		"all inside it":      {&starlingv1.SearchAreaRequest{Area: polygon}, &starlingv1.SearchAreaResponse{TotalCount: 10_000}, 10_000, time.Millisecond, 20 * time.Millisecond},
		"most cells":         {&starlingv1.WatchAreaRequest{Area: cells}, nil, 10, 2 * time.Millisecond, 50 * time.Millisecond},
		"near with an area":  {&starlingv1.SearchNearestRequest{Area: polygon}, nil, 10, 2 * time.Millisecond, 20 * time.Millisecond},
		"a whole snapshot":   {nil, &starlingv1.WatchAreaResponse{Changed: make([]*starlingv1.Vehicle, 9000)}, 1e6, 5 * time.Millisecond, 50 * time.Millisecond},
		"counts":             {&starlingv1.CountVehiclesRequest{PageSize: 10_000}, nil, 1e6, time.Millisecond, 50 * time.Millisecond},
		"a negative request": {&starlingv1.ListVehiclesRequest{PageSize: -5}, nil, 1e6, 0, 0},
		"something else":     {"x", nil, 1e6, 0, 0},
	} {
		got := query.Cost(c.req, c.answer, c.fleet)
		require.GreaterOrEqual(t, got, c.least, name)
		require.LessOrEqual(t, got, c.most, name)
	}
}
