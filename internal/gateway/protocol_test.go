package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

func (p *process) method(method, path string) answer {
	p.t.Helper()
	return p.do(path, "", func(r *http.Request) { r.Method = method })
}

// Allow lists the methods that a path has, whichever other was tried, and each of
// those is taken.
func TestAllowIsTrue(t *testing.T) {
	p := start(t)
	for path, allow := range map[string]string{
		"/v1/vehicles":               "GET, HEAD",
		"/v1/vehicles:searchNearest": "GET, HEAD, POST",
		"/v1/vehicles:searchArea":    "GET, HEAD, POST",
		"/v1/vehicles:watchArea":     "GET, HEAD, POST",
		"/v1/vehicles:count":         "GET, HEAD",
		"/v1/vehicles:watchCounts":   "GET, HEAD",
		"/v1/vehicles/a":             "GET, HEAD",
		"/v1/vehicles/a:watch":       "GET, HEAD",
		"/v1/reports:send":           "POST",
		"/openapi.json":              "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			if strings.Contains(path, ":watch") && method == "GET" {
				continue // it has no end
			}
			a := p.method(method, path)
			allowed := strings.Contains(", "+allow+",", ", "+method+",")
			require.Equal(t, !allowed, a.status == http.StatusMethodNotAllowed, "%s %s: %d", method, path, a.status)
			if !allowed {
				require.Equal(t, allow, a.header.Get("Allow"), "%s %s", method, path)
			}
		}
	}
}

// A HEAD has the headers of the GET and no body; that of a watch ends.
func TestHeadIsAGetWithoutItsBody(t *testing.T) {
	p := start(t)
	p.report("a", 1, 48.2, 16.3)
	for _, path := range []string{"/v1/vehicles/a", "/v1/vehicles/nobody", "/v1/vehicles:searchNearest?place.latitude=1&place.longitude=2", "/openapi.json", "/nothing"} {
		get, head := p.method("GET", path), p.method("HEAD", path)
		require.Equal(t, get.status, head.status, path)
		require.Equal(t, get.header.Get("Content-Type"), head.header.Get("Content-Type"), path)
		require.Empty(t, head.body, path)
	}
	for _, path := range []string{"/v1/vehicles/a:watch", "/v1/vehicles:watchArea?" + viewport(48, 49), "/v1/vehicles:watchCounts"} {
		head := p.method("HEAD", path)
		require.Equal(t, http.StatusOK, head.status, path)
		require.Equal(t, "application/x-ndjson", head.header.Get("Content-Type"), path)
	}
	require.Equal(t, http.StatusBadRequest, p.method("HEAD", "/v1/vehicles/%20:watch").status)
}

// What can be absent and is, is left out; everything else is there, a zero too.
func TestZerosThatMeanSomethingAreWritten(t *testing.T) {
	p := start(t)
	p.report("greenwich", 1, 51.5, 0)
	v := p.do("/v1/vehicles/greenwich", "").object(t)
	require.Equal(t, 0.0, at(t, v, "position", "longitude"))
	require.Equal(t, 0.0, at(t, v, "displayPosition", "longitude"))
	require.Equal(t, 0.0, at(t, v, "odometerM"))
	require.Equal(t, "0", at(t, v, "fixCounts", "duplicate"))
	require.Equal(t, false, at(t, v, "conflicting"))
	require.NotContains(t, v, "speedMps", "unknown")

	nearest := p.do("/v1/vehicles:searchNearest?place.latitude=51.5&place.longitude=0", "").object(t)
	require.Equal(t, 0.0, at(t, nearest, "results", 0, "distanceM"))
	require.NotContains(t, at(t, nearest, "results", 0, "vehicle"), "odometerM", "this call does not state it")
	watched := p.watch("/v1/vehicles/greenwich:watch", "*/*").next()
	require.Equal(t, 0.0, at(t, watched, "result", "vehicle", "position", "longitude"))
	require.Equal(t, false, at(t, watched, "result", "unknown"))
}

func TestPartitionZeroIsWritten(t *testing.T) {
	p, _ := stand(t, &fleet{watch: func(_ string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
		return out.Send(&starlingv1.WatchVehicleResponse{Vehicle: &starlingv1.Vehicle{Name: "vehicles/a"}})
	}, stale: []*starlingv1.StalePartition{{}}})
	require.Equal(t, 0.0, at(t, p.do("/v1/vehicles", "").object(t), "stalePartitions", 0, "partition"))
}

// A body that its service takes for too large can't be sent again with success.
func TestARequestThatItsServiceWouldNotReadIsTooLarge(t *testing.T) {
	p := start(t)
	cells := strings.Repeat(`"8928308280fffff",`, 20_000)
	polygon := `{"area": {"cells": {"h3Cells": [` + strings.TrimSuffix(cells, ",") + `]}}}`
	fixes := fmt.Sprintf(`{"deviceTimeMs": "%d", "latitude": 1.5, "longitude": 2.5, "speedMps": 1.5},`, 1<<40)
	report := `{"report": {"vehicleId": "a", "sessionId": 1, "sequence": 1, "fixes": [` + strings.TrimSuffix(strings.Repeat(fixes, 11_000), ",") + `]}}`
	for path, body := range map[string]string{"/v1/vehicles:searchArea": polygon, "/v1/vehicles:watchArea": polygon, "/v1/reports:send": report} {
		require.Less(t, len(body), 1<<20, "else the gateway itself refuses it")
		a := p.do(path, body)
		require.Equal(t, http.StatusRequestEntityTooLarge, a.status, "%s: %s", path, a.body)
		st := status.FromProto(statusOf(t, a.body))
		require.Equal(t, codes.InvalidArgument, st.Code())
		info, ok := st.Details()[0].(*errdetails.ErrorInfo)
		require.True(t, ok)
		require.Equal(t, "BODY_TOO_LARGE", info.Reason)
		require.Empty(t, a.header.Get("Retry-After"))
	}
}

// Errors that gRPC makes itself have typed details too, in a watch as well.
func TestEveryErrorHasAReason(t *testing.T) {
	p, _ := stand(t, &fleet{watch: func(_ string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
		if err := out.Send(&starlingv1.WatchVehicleResponse{}); err != nil {
			return err
		}
		<-out.Context().Done()
		return status.FromContextError(out.Context().Err()).Err()
	}})
	lines := strings.Split(strings.TrimSpace(string(p.do("/v1/vehicles/a:watch", "", func(r *http.Request) { r.Header.Set("Grpc-Timeout", "50m") }).body)), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[1], "CALL_TIMEOUT")
	require.Contains(t, string(p.do("/v1/vehicles:count", "").body), "NOT_SERVED")
}

func TestSmallAnswersAreCompressedToo(t *testing.T) {
	p := start(t)
	p.report("a", 1, 48.2, 16.3)
	zipped := func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") }
	for _, path := range []string{"/v1/vehicles/a", "/v1/vehicles", "/v1/vehicles:searchNearest?place.latitude=1&place.longitude=2", "/v1/vehicles/nobody"} {
		require.Equal(t, "gzip", p.do(path, "", zipped).header.Get("Content-Encoding"), path)
		require.Empty(t, p.do(path, "", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip;q=0") }).header.Get("Content-Encoding"), path)
	}
}
