package gateway_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/gateway"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// FuzzRequest sends paths, parameters and bodies to services that have nothing to
// answer: whatever comes, the answer is JSON, and never that the server is at fault.
func FuzzRequest(f *testing.F) {
	g, err := gateway.New(gateway.DefaultConfig(), gateway.Deps{Guard: auth.Open(), Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(f, err)
	server := grpc.NewServer()
	starlingv1.RegisterFleetServiceServer(server, starlingv1.UnimplementedFleetServiceServer{})
	starlingv1.RegisterIngestServiceServer(server, starlingv1.UnimplementedIngestServiceServer{})
	starlingv1.RegisterRideServiceServer(server, starlingv1.UnimplementedRideServiceServer{})
	starlingv1.RegisterHistoryServiceServer(server, starlingv1.UnimplementedHistoryServiceServer{})
	const most = 1 << 20
	fleet, err := g.AddFleet(most)
	require.NoError(f, err)
	ingest, err := g.AddIngest(most)
	require.NoError(f, err)
	rides, err := g.AddRides(most)
	require.NoError(f, err)
	past, err := g.AddHistory(most)
	require.NoError(f, err)
	go server.Serve(past)
	go server.Serve(fleet)
	go server.Serve(ingest)
	go server.Serve(rides)
	f.Cleanup(server.Stop)
	handler := g.Handler()

	f.Add("/v1/vehicles:searchNearest", "place.latitude=1e400&place.longitude=NaN&max_results=-1", "")
	f.Add("/v1/vehicles:searchArea", "", `{"area":{"polygon":{"vertices":[{"latitude":"x"},[]]}}}`)
	f.Add("/v1/vehicles:searchArea", "", strings.Repeat(`{"area":`, 2000))
	f.Add("/v1/vehicles:count", "selection.within_h3_cells=8&selection.availabilities=7&pageToken=%00", "")
	f.Add("/v1/vehicles/a%2Fb:watch", "resume_token=%ff&minInterval=1e9s", "")
	f.Add("/v1/vehicles", "filter.maxAge=-0.1s&filter..=&=&&page_size=99999999999", "")
	f.Add("/v1/reports", "", `{"report":{"vehicleId":"\ud800","fixes":[{"latitude":1e999}]}}`)
	f.Add("/v1/vehicles/a:track", "layers=9&start_time=2026-13-01T00:00:00Z&toleranceM=NaN&min_interval=1s", "")
	f.Add("/v1/history:visits", "h3_cells=z&polygon.vertices=1", `{"polygon":{"vertices":[null,{"latitude":"Infinity"}]}}`)
	f.Add("/v1/rides", "active=maybe", `{"order":{"deadlineMs":"9223372036854775808"}}`)
	f.Fuzz(func(t *testing.T, path, query, body string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if body != "" {
			r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
		}
		r.URL = &url.URL{Path: "/" + strings.TrimPrefix(path, "/"), RawQuery: query}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%s", w.Body)
		}
		for line := range strings.Lines(w.Body.String()) {
			if w.Code != http.StatusMovedPermanently && !json.Valid([]byte(line)) {
				t.Fatalf("%d with a body that is no JSON: %q", w.Code, line)
			}
		}
	})
}
