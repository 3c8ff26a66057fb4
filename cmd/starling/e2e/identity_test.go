package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// issuer signs the tokens of a test.
type issuer struct {
	t    *testing.T
	key  *mint.Key
	file string // with the public key
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	i := &issuer{t: t, file: filepath.Join(t.TempDir(), "keys.pem")}
	i.key, err = mint.NewKey(secret)
	require.NoError(t, err)
	public, err := mint.Public(secret)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(i.file, public, 0o600))
	return i
}

func (i *issuer) token(scope, vehicle string) string {
	i.t.Helper()
	token, err := i.key.Sign(mint.Token{Issuer: "test", Audience: "starling", Subject: "s-" + scope + vehicle, Scope: scope, Vehicle: vehicle, Until: time.Now().Add(time.Hour)})
	require.NoError(i.t, err)
	return token
}

func (i *issuer) as(scope, vehicle string) context.Context {
	return metadata.AppendToOutgoingContext(i.t.Context(), "authorization", "Bearer "+i.token(scope, vehicle))
}

// trusting is a configuration that believes the issuer.
func (i *issuer) trusting() app.Config {
	cfg := app.DefaultConfig()
	cfg.Partitions = 2
	cfg.Local.Directory = i.t.TempDir()
	cfg.Auth.KeysFile, cfg.Auth.Issuer = i.file, "test"
	return cfg
}

func reportOf(vehicle string) *starlingv1.Report {
	return &starlingv1.Report{VehicleId: vehicle, SessionId: 1, Sequence: 1, Fixes: []*starlingv1.Fix{{
		DeviceTimeMs: time.Now().UnixMilli(), Latitude: 48, Longitude: 16,
	}}}
}

// TestIdentityOfAWholeProcess holds every listener of `up` to the tokens that it
// believes.
func TestIdentityOfAWholeProcess(t *testing.T) {
	i := newIssuer(t)
	p := startAs(t, i.trusting(), app.AllRoles()...)
	defer p.end(t)
	ingest := starlingv1.NewIngestServiceClient(dial(t, p.Addr(app.Ingest)))
	fleet := starlingv1.NewFleetServiceClient(dial(t, p.Addr(app.Matcher)))

	refused := func(err error, code codes.Code, reason auth.Reason) {
		t.Helper()
		require.Equal(t, code, status.Code(err), "%v", err)
		require.Equal(t, string(reason), rpcstatus.ReasonOf(err))
	}
	stream := func(ctx context.Context, vehicles ...string) error {
		s, err := ingest.StreamReports(ctx)
		require.NoError(t, err)
		for _, v := range vehicles {
			if s.Send(&starlingv1.StreamReportsRequest{Report: reportOf(v)}) != nil {
				break // the status is at the other end
			}
		}
		require.NoError(t, s.CloseSend())
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}
	refused(stream(t.Context(), "car-1"), codes.Unauthenticated, auth.Missing)
	refused(stream(i.as("dispatch", ""), "car-1"), codes.PermissionDenied, auth.ScopeMissing)
	refused(stream(i.as("report", "car-1"), "car-2"), codes.PermissionDenied, auth.VehicleNotPermitted)
	refused(stream(i.as("report", "car-1"), "car-1", "car-1", "car-2"), codes.PermissionDenied, auth.VehicleNotPermitted)
	require.ErrorContains(t, stream(i.as("report", "car-1"), "car-1"), "EOF")

	_, err := ingest.SendReport(i.as("report", "car-1"), &starlingv1.SendReportRequest{Report: reportOf("car-2")})
	refused(err, codes.PermissionDenied, auth.VehicleNotPermitted)
	_, err = fleet.ListVehicles(t.Context(), &starlingv1.ListVehiclesRequest{})
	refused(err, codes.Unauthenticated, auth.Missing)
	_, err = fleet.ListVehicles(i.as("dispatch", ""), &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)

	for _, c := range []struct {
		url, scope string
		code       int
	}{
		{p.JSONAddr() + "/v1/vehicles", "", 401},
		{p.JSONAddr() + "/v1/vehicles", "rider", 403},
		{p.JSONAddr() + "/v1/vehicles", "dispatch", 200},
		{p.JSONAddr() + "/v1/vehicles?access_token=x", "dispatch", 401},
		{p.JSONAddr() + "/openapi.json", "", 401},
		{p.AdminAddr() + "/healthz", "", 200},
		{p.AdminAddr() + "/readyz", "", 200},
		{p.AdminAddr() + "/metrics", "", 401},
		{p.AdminAddr() + "/metrics", "report", 403},
		{p.AdminAddr() + "/metrics", "metrics", 200},
		{p.AdminAddr() + "/config", "metrics", 403},
		{p.AdminAddr() + "/config", "operate", 200},
		{p.AdminAddr() + "/debug/pprof/cmdline", "", 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.url, nil)
		require.NoError(t, err)
		if c.scope != "" {
			req.Header.Set("Authorization", "Bearer "+i.token(c.scope, ""))
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, c.code, resp.StatusCode, "%s as %q", c.url, c.scope)
	}
}
