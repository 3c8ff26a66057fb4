package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/rpcstatus"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// securing gives a deployment's certificates to its processes and clients.
type securing struct {
	t                 *testing.T
	ca, cert, key     string // files
	roots             *x509.CertPool
	clientCertificate tls.Certificate
}

func newSecuring(t *testing.T) *securing {
	t.Helper()
	authority, err := mint.NewAuthority("test", time.Now().Add(time.Hour))
	require.NoError(t, err)
	cert, key, err := authority.Certificate("starling", []string{"localhost", "127.0.0.1"})
	require.NoError(t, err)
	s := &securing{t: t, roots: x509.NewCertPool()}
	require.True(t, s.roots.AppendCertsFromPEM(authority.PEM))
	s.clientCertificate, err = tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	s.ca, s.cert, s.key = write("ca.pem", authority.PEM), write("cert.pem", cert), write("key.pem", key)
	return s
}

// secure has a process speak TLS, and some of its servers ask for certificates.
func (s *securing) secure(cfg *app.Config, mutual ...string) {
	cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.CAFile, cfg.TLS.ClientCAFile = s.cert, s.key, s.ca, s.ca
	cfg.TLS.RequireClients = mutual
	cfg.Server.MetricsListen = "127.0.0.1:0"
}

// config is a client's, with or without a certificate.
func (s *securing) config(certificate bool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.roots}
	if certificate {
		c.Certificates = []tls.Certificate{s.clientCertificate}
	}
	return c
}

func (s *securing) dial(addr string, certificate bool) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(s.config(certificate))))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// get returns the HTTP status of an answer, or 0 if there is no connection.
func (s *securing) get(url, token string, certificate bool) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://"+url, nil)
	require.NoError(s.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: s.config(certificate), DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0
	}
	require.NoError(s.t, answer.Body.Close())
	return answer.StatusCode
}

// TestIdentityOverTLS runs a deployment as a security engineer sets one up: TLS
// everywhere, certificates for phones and inside, a listener for metrics, and a
// fan-out before a matcher with a token of its own.
func TestIdentityOverTLS(t *testing.T) {
	i, s := newIssuer(t), newSecuring(t)
	cfg := i.trusting()
	s.secure(&cfg, "ingest", "matcher", "metrics")
	p := startAs(t, cfg, app.AllRoles()...)
	defer p.end(t)

	front := i.trusting()
	s.secure(&front)
	front.Matcher.Regions, front.Fanout.Replicas = []string{"all=rest"}, []string{"all=" + p.Addr(app.Matcher)}
	front.Auth.ServiceTokenFile = filepath.Join(t.TempDir(), "service.token")
	require.NoError(t, os.WriteFile(front.Auth.ServiceTokenFile, []byte(i.token("service", "")+"\n"), 0o600))
	f := startAs(t, front, app.Fanout)
	defer f.end(t)

	refused := func(err error, code codes.Code, reason auth.Reason) {
		t.Helper()
		require.Equal(t, code, status.Code(err), "%v", err)
		require.Equal(t, string(reason), rpcstatus.ReasonOf(err))
	}
	// A phone needs a certificate and a token.
	send := func(certificate bool, scope string) error {
		ctx := t.Context()
		if scope != "" {
			ctx = i.as(scope, "car-1")
		}
		_, err := starlingv1.NewIngestServiceClient(s.dial(p.Addr(app.Ingest), certificate)).SendReport(ctx, &starlingv1.SendReportRequest{Report: reportOf("car-1")})
		return err
	}
	require.Equal(t, codes.Unavailable, status.Code(send(false, "report")), "without a certificate")
	refused(send(true, ""), codes.Unauthenticated, auth.Missing)
	refused(send(true, "dispatch"), codes.PermissionDenied, auth.ScopeMissing)
	require.NoError(t, send(true, "report"))

	// Metrics by certificate at the one, by token at the other.
	require.Zero(t, s.get(p.MetricsAddr()+"/metrics", i.token("metrics", ""), false), "without a certificate")
	require.Equal(t, http.StatusOK, s.get(p.MetricsAddr()+"/metrics", "", true))
	require.Equal(t, http.StatusUnauthorized, s.get(f.MetricsAddr()+"/metrics", "", false))
	require.Equal(t, http.StatusUnauthorized, s.get(f.MetricsAddr()+"/metrics", "", true), "a certificate is no proof where none is asked for")
	require.Equal(t, http.StatusForbidden, s.get(f.MetricsAddr()+"/metrics", i.token("report", "car-1"), false))
	require.Equal(t, http.StatusOK, s.get(f.MetricsAddr()+"/metrics", i.token("metrics", ""), false))
	require.Equal(t, http.StatusNotFound, s.get(f.AdminAddr()+"/metrics", i.token("operate", ""), false), "they are not at the admin server too")

	// The fan-out asks for its callers, who see through it what they may.
	through := starlingv1.NewFleetServiceClient(s.dial(f.Addr(app.Fanout), false))
	require.Eventually(t, func() bool {
		v, err := through.GetVehicle(i.as("dispatch", ""), &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"})
		return err == nil && v.FixCounts.GetAccepted() == 1
	}, time.Minute, 10*time.Millisecond)
	v, err := through.GetVehicle(i.as("rider", "car-1"), &starlingv1.GetVehicleRequest{Name: "vehicles/car-1"})
	require.NoError(t, err)
	require.Nil(t, v.FixCounts, "a rider does not see them")
	_, err = through.GetVehicle(i.as("rider", "car-1"), &starlingv1.GetVehicleRequest{Name: "vehicles/car-2"})
	refused(err, codes.PermissionDenied, auth.VehicleNotPermitted)
	_, err = through.ListVehicles(i.as("report", "car-1"), &starlingv1.ListVehiclesRequest{})
	refused(err, codes.PermissionDenied, auth.ScopeMissing)
	_, err = through.ListVehicles(t.Context(), &starlingv1.ListVehiclesRequest{})
	refused(err, codes.Unauthenticated, auth.Missing)
	require.Equal(t, http.StatusOK, s.get(f.JSONAddr()+"/v1/vehicles", i.token("dispatch", ""), false))
	require.Equal(t, http.StatusUnauthorized, s.get(f.JSONAddr()+"/v1/vehicles", "", false))

	// The matcher behind it asks for a certificate, and for a token all the same.
	behind := func(certificate bool) starlingv1.FleetServiceClient {
		return starlingv1.NewFleetServiceClient(s.dial(p.Addr(app.Matcher), certificate))
	}
	_, err = behind(false).ListVehicles(i.as("dispatch", ""), &starlingv1.ListVehiclesRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = behind(true).ListVehicles(t.Context(), &starlingv1.ListVehiclesRequest{})
	refused(err, codes.Unauthenticated, auth.Missing)
	_, err = behind(true).ListVehicles(i.as("dispatch", ""), &starlingv1.ListVehiclesRequest{})
	require.NoError(t, err)
}
