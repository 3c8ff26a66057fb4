package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/starling-fleet/starling/internal/alarmtest"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/certs"
)

// files are those of a store, by an authority of their own.
type files struct {
	certs.Config
	authority *mint.Authority
}

func (f *files) write(t *testing.T, hosts ...string) {
	cert, key, err := f.authority.Certificate(hosts[0], hosts)
	require.NoError(t, err)
	for path, data := range map[string][]byte{f.CertFile: cert, f.KeyFile: key, f.CAFile: f.authority.PEM, f.ClientCAFile: f.authority.PEM} {
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
}

func newFiles(t *testing.T) *files {
	dir := t.TempDir()
	f := &files{Config: certs.DefaultConfig()}
	f.CertFile, f.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	f.CAFile, f.ClientCAFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "clients.pem")
	f.RequireClients = []string{"matcher"}
	f.renew(t)
	f.write(t, "127.0.0.1")
	return f
}

func (f *files) renew(t *testing.T) {
	var err error
	f.authority, err = mint.NewAuthority("test", time.Now().Add(time.Hour))
	require.NoError(t, err)
}

func store(t *testing.T, f *files) *certs.Store { return storeWith(t, f, prometheus.NewRegistry()) }

func storeWith(t *testing.T, f *files, registry *prometheus.Registry) *certs.Store {
	s, err := certs.New(f.Config, certs.Deps{Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return s
}

// check asks the health of a gRPC server over a new connection.
func check(t *testing.T, addr string, s *certs.Store) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(s.Client()))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func serve(t *testing.T, s *certs.Store, name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.Creds(s.Server(name)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// Certificates of another authority are in force, on both sides, once the files
// were looked at; those that can't be read are not.
func TestCertificatesAreReadAnew(t *testing.T) {
	f := newFiles(t)
	registry := prometheus.NewRegistry()
	s := storeWith(t, f, registry)
	alarmtest.RaisedTo(t, registry, "starling_tls_certificate_expiry_timestamp_seconds", func(expiry float64) bool { // in an hour
		return time.Until(time.Unix(int64(expiry), 0)) < 7*24*time.Hour
	})
	addr := serve(t, s, "matcher")
	require.NoError(t, check(t, addr, s), "with the certificates of both")

	stranger := newFiles(t)
	require.Error(t, check(t, addr, store(t, stranger)), "a certificate of another authority")

	f.renew(t)
	f.write(t, "127.0.0.1")
	former := store(t, f) // has the new ones
	require.Error(t, check(t, addr, former), "the server has the old ones")
	require.NoError(t, s.Reload())
	require.NoError(t, check(t, addr, former))
	require.NoError(t, check(t, addr, s), "its own client too")

	require.NoError(t, os.WriteFile(f.CertFile, []byte("nonsense"), 0o600))
	require.ErrorContains(t, s.Reload(), "cert.pem")
	alarmtest.Raised(t, registry, "starling_tls_reload_failures_total")
	require.NoError(t, check(t, addr, s), "the last ones stay in force")
}

// A server that requires certificates turns away who has none; the others don't
// ask.
func TestMutualTLS(t *testing.T) {
	f := newFiles(t)
	s := store(t, f)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(f.authority.PEM))
	for name, mutual := range map[string]bool{"matcher": true, "metrics": false} {
		require.Equal(t, mutual, s.Mutual(name))
		l, err := tls.Listen("tcp", "127.0.0.1:0", s.Web(name))
		require.NoError(t, err)
		server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
		go func() { _ = server.Serve(l) }()
		defer func() { _ = server.Close() }()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		resp, err := client.Get("https://" + l.Addr().String())
		require.Equal(t, mutual, err != nil, "%v", err)
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
	}
	require.Nil(t, (*certs.Store)(nil).Web("json"))
	require.Nil(t, (*certs.Store)(nil).Server("ingest"))
	require.False(t, (*certs.Store)(nil).Mutual("metrics"))
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*certs.Config)
		want   string
	}{
		{func(c *certs.Config) { c.CertFile = "x" }, "set together"},
		{func(c *certs.Config) { c.ClientCAFile = "x" }, "needs cert_file"},
		{func(c *certs.Config) { c.RequireClients = []string{"matcher"} }, "needs client_ca_file"},
		{func(c *certs.Config) { c.RequireClients = []string{"tracker"} }, `has "tracker"`},
		{func(c *certs.Config) { c.ReloadInterval = 0 }, "reload_interval"},
	} {
		cfg := certs.DefaultConfig()
		c.change(&cfg)
		require.ErrorContains(t, cfg.Validate(), c.want)
	}
}
