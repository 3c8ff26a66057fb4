package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/gateway"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// fleet is a service whose answers a test decides.
type fleet struct {
	starlingv1.UnimplementedFleetServiceServer
	get   func(ctx context.Context, name string) (*starlingv1.Vehicle, error)
	watch func(name string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error
	// listBytes is about how large a list is.
	listBytes int
	// again has a watch of an area send its second message.
	again chan struct{}
	// stale are the partitions that a list reports as stale.
	stale []*starlingv1.StalePartition
}

func (f *fleet) GetVehicle(ctx context.Context, req *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	return f.get(ctx, req.Name)
}

func (f *fleet) WatchVehicle(req *starlingv1.WatchVehicleRequest, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	return f.watch(req.Name, out)
}

// stand serves a fleet behind a gateway over HTTP.
func stand(t *testing.T, f *fleet, change ...func(*gateway.Config)) (*process, *prometheus.Registry) {
	t.Helper()
	cfg := gateway.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	registry := prometheus.NewRegistry()
	json, err := gateway.New(cfg, gateway.Deps{Guard: auth.Open(), Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	inMemory, err := json.AddFleet(matcher.MaxRequestBytes)
	require.NoError(t, err)
	server := grpc.NewServer()
	starlingv1.RegisterFleetServiceServer(server, f)
	go server.Serve(inMemory)
	t.Cleanup(server.Stop)
	web := httptest.NewServer(json.Handler())
	t.Cleanup(web.Close)
	return &process{t: t, base: web.URL}, registry
}

// What the client sends as Authorization is the authorization metadata, and no
// other header can become it.
func TestAuthorizationIsPassedOn(t *testing.T) {
	var got metadata.MD
	p, _ := stand(t, &fleet{get: func(ctx context.Context, name string) (*starlingv1.Vehicle, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		if len(got.Get("authorization")) == 0 {
			return nil, gstatus.Error(codes.Unauthenticated, "no token")
		}
		return &starlingv1.Vehicle{Name: name}, nil
	}})
	a := p.do("/v1/vehicles/a", "", func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer good")
		r.Header.Set("Grpc-Metadata-Authorization", "Bearer forged")
		r.Header.Set("Grpc-Metadata-Tenant", "other")
		r.Header.Set("Cookie", "a=b")
	})
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, []string{"Bearer good"}, got.Get("authorization"))
	require.Equal(t, []string{"127.0.0.1"}, got.Get(auth.AddressKey), "rates of addresses are the client's")
	require.Empty(t, got.Get("tenant"))
	for key := range got {
		require.NotContains(t, key, "cookie")
	}
	a = p.do("/v1/vehicles/a", "", func(r *http.Request) { r.Header.Set("Grpc-Metadata-Authorization", "Bearer forged") })
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Equal(t, "Bearer", a.header.Get("WWW-Authenticate"))
}

// What a service answers is passed on, whatever its text looks like: nothing in
// it can pose as a fault that the gateway found.
func TestAStatusIsPassedOnAsItIs(t *testing.T) {
	const text = "\x00fault\x00place\x00must be paid for"
	p, _ := stand(t, &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		return nil, gstatus.Error(codes.NotFound, text)
	}})
	a := p.do("/v1/vehicles/a", "")
	require.Equal(t, http.StatusNotFound, a.status)
	require.Equal(t, text, a.object(t)["message"])
}

func TestACallEndsInTime(t *testing.T) {
	wait := func(ctx context.Context, _ string) (*starlingv1.Vehicle, error) {
		<-ctx.Done()
		return nil, gstatus.FromContextError(ctx.Err()).Err()
	}
	p, _ := stand(t, &fleet{get: wait}, func(cfg *gateway.Config) { cfg.CallTimeout = 20 * time.Millisecond })
	a := p.do("/v1/vehicles/a", "")
	require.Equal(t, http.StatusGatewayTimeout, a.status)
	require.Equal(t, int32(codes.DeadlineExceeded), statusOf(t, a.body).Code)

	p, _ = stand(t, &fleet{get: wait}, func(cfg *gateway.Config) { cfg.CallTimeout = time.Hour })
	a = p.do("/v1/vehicles/a", "", func(r *http.Request) { r.Header.Set("Grpc-Timeout", "20m") })
	require.Equal(t, http.StatusGatewayTimeout, a.status)
}

// A client that does not finish its body is answered so and holds nothing.
func TestASlowBodyIsRefused(t *testing.T) {
	p, _ := stand(t, &fleet{}, func(cfg *gateway.Config) { cfg.ReadTimeout = 20 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "POST /v1/vehicles:searchNearest HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
}

// A client that reads nothing of its watch is cut off, and the call with it.
func TestAWatchThatIsNotReadEnds(t *testing.T) {
	ended := make(chan struct{})
	p, _ := stand(t, &fleet{watch: func(_ string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
		defer close(ended)
		big := &starlingv1.WatchVehicleResponse{ResumeToken: strings.Repeat("a", 1<<20)}
		for {
			if err := out.Send(big); err != nil {
				return err
			}
		}
	}}, func(cfg *gateway.Config) { cfg.WriteTimeout = 20 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /v1/vehicles/a:watch HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the call goes on though nobody reads")
	}
}

func TestRetryAfterIsTheServicesDelay(t *testing.T) {
	p, _ := stand(t, &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		st, err := gstatus.New(codes.Unavailable, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(1200 * time.Millisecond)})
		require.NoError(t, err)
		return nil, st.Err()
	}})
	a := p.do("/v1/vehicles/a", "")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "2", a.header.Get("Retry-After"))
}

func TestAnErrorAfterTheFirstMessageIsTheLastLine(t *testing.T) {
	p, _ := stand(t, &fleet{watch: func(name string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
		if name == "vehicles/none" {
			return gstatus.Error(codes.NotFound, "none")
		}
		if err := out.Send(&starlingv1.WatchVehicleResponse{Unknown: true}); err != nil {
			return err
		}
		return gstatus.Error(codes.Unavailable, "gone")
	}})
	w := p.watch("/v1/vehicles/a:watch", "*/*")
	require.Equal(t, true, at(t, w.next(), "result", "unknown"))
	require.Equal(t, "gone", at(t, w.next(), "error", "message"))
	require.False(t, w.lines.Scan())
	require.NoError(t, w.lines.Err())

	for _, accept := range []string{"*/*", "text/event-stream"} {
		a := p.do("/v1/vehicles/none:watch", "", func(r *http.Request) { r.Header.Set("Accept", accept) })
		require.Equal(t, http.StatusNotFound, a.status, "a failure before any message is the answer's own status")
		require.Equal(t, "none", statusOf(t, a.body).Message)
	}
}

// open counts the requests that the gateway's own metric counts as open.
func open(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	return family(t, registry, "starling_json_open_requests")[0].GetGauge().GetValue()
}

func family(t *testing.T, registry *prometheus.Registry, name string) []*dto.Metric {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

func TestACancelledWatchLeavesNothing(t *testing.T) {
	const watches = 50
	p, registry := stand(t, &fleet{watch: func(_ string, out grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
		if err := out.Send(&starlingv1.WatchVehicleResponse{Unknown: true}); err != nil {
			return err
		}
		<-out.Context().Done()
		return out.Context().Err()
	}})
	// A client of its own, so that its connections can be counted out again.
	round := func(n int) {
		web := &http.Transport{}
		defer web.CloseIdleConnections()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range n {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/v1/vehicles/a:watch", nil)
			require.NoError(t, err)
			resp, err := web.RoundTrip(req)
			require.NoError(t, err)
			_, err = resp.Body.Read(make([]byte, 10))
			require.NoError(t, err)
			t.Cleanup(func() { resp.Body.Close() })
		}
		require.Equal(t, float64(n), open(t, registry))
	}
	gone := func() bool { return open(t, registry) == 0 }
	round(1) // what stays for good has been started
	require.Eventually(t, gone, patience, time.Millisecond)
	before := runtime.NumGoroutine()
	round(watches)
	require.Eventually(t, gone, patience, time.Millisecond)
	// Fewer than one goroutine for each watch: none of them left any.
	require.Eventually(t, func() bool { return runtime.NumGoroutine() < before+watches/2 }, patience, time.Millisecond)
}

func TestTooManyRequestsAreTurnedAway(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	p, _ := stand(t, &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		entered <- struct{}{}
		<-leave
		return &starlingv1.Vehicle{}, nil
	}}, func(cfg *gateway.Config) { cfg.MaxOpenRequests = 1 })
	first := make(chan answer)
	go func() { first <- p.do("/v1/vehicles/a", "") }()
	<-entered
	a := p.do("/v1/vehicles/b", "")
	require.Equal(t, http.StatusTooManyRequests, a.status)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	close(leave)
	require.Equal(t, http.StatusOK, (<-first).status)
}

func TestRequestsAreCounted(t *testing.T) {
	p, registry := stand(t, &fleet{get: func(context.Context, string) (*starlingv1.Vehicle, error) {
		return &starlingv1.Vehicle{}, nil
	}})
	p.do("/v1/vehicles/a", "")
	p.do("/v1/vehicles/a", "")
	p.do("/v1/nothing", "")
	// The count follows the answer.
	require.Eventually(t, func() bool {
		return requests(t, registry, "/starling.v1.FleetService/GetVehicle", "200") == 2 && requests(t, registry, "none", "404") == 1
	}, patience, time.Millisecond)
}

// requests is the gateway's own count of requests with a method and a status.
func requests(t *testing.T, registry *prometheus.Registry, method, status string) float64 {
	t.Helper()
	for _, m := range family(t, registry, "starling_json_requests_total") {
		if m.GetLabel()[0].GetValue() == method && m.GetLabel()[1].GetValue() == status {
			return m.GetCounter().GetValue()
		}
	}
	return 0
}

// Every method that can be offered is, and a stream of answers has a verb by
// which the gateway knows not to hold its messages back.
func TestEveryMethodHasAPath(t *testing.T) {
	p, _ := stand(t, &fleet{})
	for _, file := range []protoreflect.FileDescriptor{starlingv1.File_starling_v1_fleet_proto, starlingv1.File_starling_v1_ingest_proto} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			if m.IsStreamingClient() {
				continue // HTTP has no stream of requests
			}
			rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			require.NotNil(t, rule, "%s has no google.api.http", m.FullName())
			for _, r := range append(rule.AdditionalBindings, rule) {
				path := r.GetGet() + r.GetPost()
				require.True(t, strings.HasPrefix(path, "/v1/"), "%s: %q", m.FullName(), path)
				require.Equal(t, m.IsStreamingServer(), strings.Contains(path, ":watch"), "%s: %q", m.FullName(), path)
				require.Equal(t, r.GetPost() != "", r.GetBody() == "*", "%s: %q", m.FullName(), path)
				if r.GetGet() != "" {
					a := p.do(strings.NewReplacer("{name=vehicles/*}", "vehicles/a").Replace(path)+"?no_such=1", "")
					require.Equal(t, http.StatusBadRequest, a.status, "%s", path)
					require.Contains(t, string(a.body), "unknown parameter")
				}
			}
		}
	}
}

func TestTheConfigurationNamesItsFaults(t *testing.T) {
	for _, c := range []struct {
		change func(*gateway.Config)
		fault  string
	}{
		{func(c *gateway.Config) { c.MaxBodyBytes = 1 }, "max_body_bytes is 1"},
		{func(c *gateway.Config) { c.MaxOpenRequests = 0 }, "max_open_requests is 0"},
		{func(c *gateway.Config) { c.CallTimeout = 0 }, "call_timeout is 0s"},
		{func(c *gateway.Config) { c.AllowOrigins = []string{"map.example.com"} }, `allow_origins is "map.example.com"`},
		{func(c *gateway.Config) { c.AllowOrigins = []string{"https://a.example/"} }, `allow_origins is "https://a.example/"`},
	} {
		cfg := gateway.DefaultConfig()
		c.change(&cfg)
		require.ErrorContains(t, cfg.Validate(), c.fault, fmt.Sprintf("%+v", cfg))
	}
	cfg := gateway.DefaultConfig()
	cfg.AllowOrigins = []string{"*", "http://localhost:8080"}
	require.NoError(t, cfg.Validate())
}

// What has a stream of answers is treated as one, whatever its verb.
func TestStreamsAreKnown(t *testing.T) {
	g, err := gateway.New(gateway.DefaultConfig(), gateway.Deps{Guard: auth.Open(), Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	fleet, err := g.AddFleet(matcher.MaxRequestBytes)
	require.NoError(t, err)
	rides, err := g.AddRides(matcher.MaxRequestBytes)
	require.NoError(t, err)
	past, err := g.AddHistory(matcher.MaxRequestBytes)
	require.NoError(t, err)
	for _, l := range []net.Listener{fleet, rides, past} {
		require.NoError(t, l.Close()) // nobody serves
	}
	handler, streams := g.Handler(), 0
	for _, file := range []protoreflect.FileDescriptor{starlingv1.File_starling_v1_fleet_proto, starlingv1.File_starling_v1_ride_proto, starlingv1.File_starling_v1_history_service_proto} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			rule := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			if rule.GetGet() == "" {
				continue
			}
			path := strings.NewReplacer("{name=", "", "*}", "a").Replace(rule.GetGet())
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s: %s", path, w.Body)
			want := ""
			if methods.Get(i).IsStreamingServer() {
				streams++
				want = "no"
			}
			require.Equal(t, want, w.Header().Get("X-Accel-Buffering"), path)
		}
	}
	require.Equal(t, 5, streams)
}
