package fanout_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// A fan-out charges what a matcher would, in a fleet that may be of any size.
func TestCostOfCalls(t *testing.T) {
	require.Equal(t, 20*time.Millisecond, fanout.Cost(&starlingv1.ListVehiclesRequest{PageSize: 10_000}, nil))
	require.Equal(t, 20*time.Millisecond, fanout.Cost(&starlingv1.SearchAreaRequest{MaxResults: 10_000}, nil))
	require.Positive(t, fanout.Cost(&starlingv1.SearchAreaRequest{}, &starlingv1.SearchAreaResponse{TotalCount: 1000}))
	require.Less(t, fanout.Cost(&starlingv1.SearchNearestRequest{MaxResults: 10}, nil), time.Millisecond)
}
