package request_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/request"
	"github.com/starling-fleet/starling/internal/rpcstatus"
)

func TestFaultsNameFieldValueAndRule(t *testing.T) {
	var f request.Faults
	reason := rpcstatus.Reason{Domain: "test.starling.v1", Name: "INVALID"}
	require.NoError(t, f.Err(reason))

	f.Need(true, "fine", 1, "1")
	f.Require(true, "fine", "there")
	require.True(t, f.Count("fine", 3, 3, 3))
	require.Equal(t, "taxi-1", f.Vehicle("fine", "vehicles/taxi-1"))
	f.Position("fine.", 90, -180)
	f.Text("fine", strings.Repeat("ü", 5), 1, 5)
	require.Equal(t, 10, f.Size("fine", 0, 10, 20))
	require.Equal(t, 20, f.Size("fine", 20, 10, 20))
	require.NoError(t, f.Err(reason))

	f.Need(false, "speed", 7, "below %d", 5)
	f.Require(false, "order", "what is asked for")
	require.False(t, f.Count("tags", 2, 3, 4))
	f.Vehicle("name", "vehicles/..")
	f.Position("pickup_", math.NaN(), 180.5)
	f.Text("rider", "a\x00b", 1, 5)
	f.Text("reason", strings.Repeat("y", 1000), 0, 200)
	f.Size("page_size", -1, 10, 20)

	st := status.Convert(f.Err(reason))
	require.Equal(t, codes.InvalidArgument, st.Code())
	require.Equal(t, "speed: is 7: must be below 5", st.Message())
	var got []string
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField()+" "+v.GetDescription())
			}
		}
	}
	require.Equal(t, []string{
		"speed is 7: must be below 5",
		"order is missing: must be what is asked for",
		"tags has 2 entries: must be between 3 and 4",
		`name is "vehicles/..": must be vehicles/{vehicle_id}, with a vehicle id of 1 to 64 of the characters A-Z a-z 0-9 - _ . ~, but neither . nor ..`,
		"pickup_latitude is NaN: must be between -90 and 90",
		"pickup_longitude is 180.5: must be between -180 and 180",
		`rider is "a\x00b": must be 1 to 5 characters, none of them a control character`,
		`reason is "` + strings.Repeat("y", 200) + `…": must be 0 to 200 characters, none of them a control character`,
		"page_size is -1: must be 0 (for 10) or between 1 and 20",
	}, got)
}
