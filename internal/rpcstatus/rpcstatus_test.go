package rpcstatus_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/internal/rpcstatus"
)

// A status is sent among headers: whatever was asked for, it stays small.
func TestInvalidIsSmall(t *testing.T) {
	var v rpcstatus.Violations
	for range 1000 {
		v.Add("vertices.latitude", "is 91: must be between -90 and 90")
	}
	st := status.Convert(v.Err(rpcstatus.Reason{Domain: "test", Name: "INVALID"}))
	require.Equal(t, codes.InvalidArgument, st.Code())
	require.Equal(t, "vertices.latitude: is 91: must be between -90 and 90 (the first of 1000 faults, of which 20 are named)", st.Message())
	require.Less(t, proto.Size(st.Proto()), 4<<10)

	long := rpcstatus.Invalid(rpcstatus.Reason{}, "", rpcstatus.Violation(strings.Repeat("f", 1<<18), strings.Repeat("ü", 1<<18)))
	require.Less(t, proto.Size(long.Proto()), 4<<10)
	for _, d := range long.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			require.Equal(t, strings.Repeat("ü", 250)+"…", bad.GetFieldViolations()[0].GetDescription())
		}
	}
}
