package auth_test

import (
	"context"
	"encoding/base64"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// patience bounds waits for what must happen.
const patience = 20 * time.Second

// fleet answers what the test sets, and notes what reaches it.
type fleet struct {
	starlingv1.UnimplementedFleetServiceServer
	listed   *starlingv1.ListVehiclesRequest
	searched *starlingv1.SearchNearestRequest
	caller   *auth.Caller
}

func (f *fleet) ListVehicles(ctx context.Context, req *starlingv1.ListVehiclesRequest) (*starlingv1.ListVehiclesResponse, error) {
	f.listed, f.caller = req, auth.CallerOf(ctx)
	return &starlingv1.ListVehiclesResponse{NextPageToken: "next"}, nil
}

func (f *fleet) SearchNearest(ctx context.Context, req *starlingv1.SearchNearestRequest) (*starlingv1.SearchNearestResponse, error) {
	f.searched, f.caller = req, auth.CallerOf(ctx)
	return &starlingv1.SearchNearestResponse{Results: []*starlingv1.NearbyVehicle{{Vehicle: &starlingv1.Vehicle{Name: "vehicles/a", Attributes: &starlingv1.Attributes{Type: "van"}}}}}, nil
}

func (f *fleet) GetVehicle(ctx context.Context, req *starlingv1.GetVehicleRequest) (*starlingv1.Vehicle, error) {
	f.caller = auth.CallerOf(ctx)
	return &starlingv1.Vehicle{Name: req.GetName(), Attributes: &starlingv1.Attributes{Type: "van"}}, nil
}

// WatchVehicle sends one message and then nothing until its context ends.
func (f *fleet) WatchVehicle(req *starlingv1.WatchVehicleRequest, s grpc.ServerStreamingServer[starlingv1.WatchVehicleResponse]) error {
	if err := s.Send(&starlingv1.WatchVehicleResponse{Vehicle: &starlingv1.Vehicle{Name: req.GetName()}, ResumeToken: "resume"}); err != nil {
		return err
	}
	<-s.Context().Done()
	return status.FromContextError(s.Context().Err()).Err()
}

// serve serves the fleet behind the guard and returns a client.
func (b *bench) serve(t *testing.T, f starlingv1.FleetServiceServer, opts ...grpc.DialOption) starlingv1.FleetServiceClient {
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(b.Server("fleet").Options()...)
	starlingv1.RegisterFleetServiceServer(server, f)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///fleet", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return starlingv1.NewFleetServiceClient(conn)
}

func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// A stream ends with UNAUTHENTICATED when its token expires.
func TestAStreamEndsWithItsToken(t *testing.T) {
	secret := edKey(t)
	cfg := withKeys(t, secret)
	cfg.Leeway = 0
	b := newBench(t, cfg, false)
	client := b.serve(t, &fleet{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// The guard's clock stands, so its timer alone ends the stream. On a slow
	// machine that may be before the first message: then the next token lasts
	// longer.
	open := func(valid time.Duration) (grpc.ServerStreamingClient[starlingv1.WatchVehicleResponse], bool) {
		token := sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Scope, c.Until = "vehicle:read", start.Add(valid) }))
		s, err := client.WatchVehicle(as(ctx, token), &starlingv1.WatchVehicleRequest{Name: "vehicles/car-1"})
		require.NoError(t, err)
		_, err = s.Recv()
		return s, err == nil
	}
	valid := time.Second
	s, begun := open(valid)
	for ; !begun && valid < patience/2; s, begun = open(valid) {
		valid *= 2
	}
	require.True(t, begun)
	_, err := s.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	b.refuses(auth.Expired, err)
}

// A stream ends with UNAUTHENTICATED when the key of its token is removed.
func TestAStreamEndsWithItsKey(t *testing.T) {
	secret := edKey(t)
	cfg := withKeys(t, secret)
	b := newBench(t, cfg, false)
	client := b.serve(t, &fleet{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token := sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Scope = "vehicle:read" }))
	s, err := client.WatchVehicle(as(ctx, token), &starlingv1.WatchVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	other, err := mint.Public(edKey(t))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cfg.KeysFile, other, 0o600))
	require.NoError(t, b.Reload(t.Context()))
	_, err = s.Recv()
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	b.refuses(auth.KeyRemoved, err)
}

// A stream whose handler looks at messages only answers none after its token has
// expired.
func TestReflectionEndsWithItsToken(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret), false)
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(b.Server("fleet").Options()...)
	reflection.Register(server)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///fleet", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token := sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Scope, c.Until = "operate", start.Add(time.Hour) }))
	s, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(as(ctx, token))
	require.NoError(t, err)
	ask := func() error {
		require.NoError(t, s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
		_, err := s.Recv()
		return err
	}
	require.NoError(t, ask())
	b.pass(2 * time.Hour)
	err = ask()
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	b.refuses(auth.Expired, err)
	require.Equal(t, 1.0, b.metric("starling_auth_refusals_total"))
}

// Rules hold on the messages of streams too, and tokens are sealed on the way.
func TestCallsThroughTheGuard(t *testing.T) {
	secret := edKey(t)
	b := newBench(t, withKeys(t, secret), false)
	f := &fleet{}
	client := b.serve(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	with := func(subject, scope, vehicle string) context.Context {
		return as(ctx, sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Subject, c.Scope, c.Vehicle = subject, scope, vehicle })))
	}
	s, err := client.WatchVehicle(with("r", "rider", "car-1"), &starlingv1.WatchVehicleRequest{Name: "vehicles/car-2"})
	require.NoError(t, err)
	_, err = s.Recv()
	b.refuses(auth.VehicleNotPermitted, err)
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	s, err = client.WatchVehicle(with("r", "rider", "car-1"), &starlingv1.WatchVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	first, err := s.Recv()
	require.NoError(t, err)
	s, err = client.WatchVehicle(with("d", "dispatch", ""), &starlingv1.WatchVehicleRequest{Name: "vehicles/car-1", ResumeToken: first.GetResumeToken()})
	require.NoError(t, err)
	_, err = s.Recv()
	b.refuses(auth.NotYourToken, err)

	page, err := client.ListVehicles(with("d", "dispatch", ""), &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)
	_, err = client.ListVehicles(with("e", "dispatch", ""), &starlingv1.ListVehiclesRequest{PageToken: page.GetNextPageToken()})
	b.refuses(auth.NotYourToken, err)
	_, err = client.ListVehicles(with("d", "dispatch", ""), &starlingv1.ListVehiclesRequest{PageToken: page.GetNextPageToken()})
	require.NoError(t, err)
	require.Equal(t, "next", f.listed.GetPageToken())

	v, err := client.GetVehicle(with("r", "rider", "car-1"), &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	require.Nil(t, v.GetAttributes())
	v, err = client.GetVehicle(with("r", "vehicle:read", "car-*"), &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	require.NotNil(t, v.GetAttributes())
	_, err = client.SearchNearest(with("r", "rider", ""), &starlingv1.SearchNearestRequest{MaxResults: 11})
	b.refuses(auth.RiderBound, err)
}

// A fan-out asks matchers with its own token and on behalf of its caller, who
// gets no more by that than by asking them itself.
func TestOnBehalfOfACaller(t *testing.T) {
	secret := edKey(t)
	cfg := withKeys(t, secret)
	cfg.ServiceTokenFile = cfg.KeysFile + ".token"
	service := sign(t, signer(t, secret), claims(func(c *mint.Token) { c.Subject, c.Scope, c.Vehicle = "fan-out", "service", "" }))
	require.NoError(t, os.WriteFile(cfg.ServiceTokenFile, []byte(service+"\n"), 0o600))
	matcher := newBench(t, withKeysOf(cfg), false)
	f := &fleet{}
	fanout := newBench(t, cfg, false)
	inner := matcher.serve(t, f, fanout.DialOptions()...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	rider := &auth.Caller{Issuer: "i", Subject: "rider-1", Scopes: auth.Rider, Vehicle: "car-1"}
	_, err := inner.ListVehicles(auth.WithCaller(ctx, rider), &starlingv1.ListVehiclesRequest{})
	matcher.refuses(auth.ScopeMissing, err)
	_, err = inner.GetVehicle(auth.WithCaller(ctx, rider), &starlingv1.GetVehicleRequest{Name: "vehicles/car-2"})
	matcher.refuses(auth.VehicleNotPermitted, err)
	v, err := inner.GetVehicle(auth.WithCaller(ctx, rider), &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	require.NotNil(t, v.GetAttributes(), "the fan-out needs all of it, and shows its caller less")
	require.Equal(t, "rider-1", f.caller.Subject)
	require.Equal(t, auth.Rider, f.caller.Scopes)
	_, err = inner.SearchNearest(auth.WithCaller(ctx, rider), &starlingv1.SearchNearestRequest{MaxResults: 50})
	require.NoError(t, err, "the fan-out may ask for more than it shows")

	// Whoever is no service is nobody but itself, whatever it claims.
	plain := matcher.serve(t, f)
	header := metadata.AppendToOutgoingContext(as(ctx, sign(t, signer(t, secret), claims())), "starling-caller", "eyJzY29wZSI6ImRpc3BhdGNoIn0")
	_, err = plain.ListVehicles(header, &starlingv1.ListVehiclesRequest{})
	matcher.refuses(auth.ScopeMissing, err)
	// A service that forwards service is refused what only services may.
	header = metadata.AppendToOutgoingContext(as(ctx, service), "starling-caller", "eyJzY29wZSI6InNlcnZpY2UifQ")
	_, err = plain.ListVehicles(header, &starlingv1.ListVehiclesRequest{})
	matcher.refuses(auth.ScopeMissing, err)
	// Nor does naming somebody who may report make a service one that may.
	_, err = matcher.Server("ingest").Admit(ctx, sendReport, metadata.Pairs("authorization", "Bearer "+service,
		"starling-caller", base64.RawURLEncoding.EncodeToString([]byte(`{"scope":"report","vehicle":"*"}`))))
	matcher.refuses(auth.ScopeMissing, err)
	header = metadata.AppendToOutgoingContext(as(ctx, service), "starling-caller", "{")
	_, err = plain.ListVehicles(header, &starlingv1.ListVehiclesRequest{})
	matcher.refuses(auth.Malformed, err)
	// Page tokens of a service are bound where its caller gets them.
	dispatcher := &auth.Caller{Issuer: "i", Subject: "d", Scopes: auth.Dispatch}
	page, err := inner.ListVehicles(auth.WithCaller(ctx, dispatcher), &starlingv1.ListVehiclesRequest{PageToken: "raw"})
	require.NoError(t, err)
	require.Equal(t, "next", page.GetNextPageToken())
	require.Equal(t, "raw", f.listed.GetPageToken())
}

// withKeysOf believes the same keys and has no token of its own.
func withKeysOf(cfg auth.Config) auth.Config {
	cfg.ServiceTokenFile = ""
	return cfg
}
