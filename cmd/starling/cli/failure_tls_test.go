package cli

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/starling-fleet/starling/internal/auth/mint"
)

// A command and a server that disagree about TLS: the command reports which of the two
// has it, and the flag.
func TestACommandNamesADisagreementAboutTLS(t *testing.T) {
	dir := t.TempDir()
	authority, err := mint.NewAuthority("test", time.Now().Add(time.Hour))
	require.NoError(t, err)
	cert, key, err := authority.Certificate("localhost", []string{"localhost", "127.0.0.1"})
	require.NoError(t, err)
	caFile := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(caFile, authority.PEM, 0o600))
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)

	serve := func(options ...grpc.ServerOption) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := grpc.NewServer(options...)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		return l.Addr().String()
	}
	secured := serve(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})))
	plain := serve()
	admin, plainAdmin := httptest.NewUnstartedServer(nil), httptest.NewServer(nil)
	admin.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	admin.StartTLS()
	t.Cleanup(admin.Close)
	t.Cleanup(plainAdmin.Close)

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"call without TLS":   {[]string{"nearest", "--at", "48,16", "--timeout", "5s", "--matcher", secured}, "the server speaks TLS, and this command does not: set --server-ca-file"},
		"call with TLS":      {[]string{"nearest", "--at", "48,16", "--timeout", "5s", "--matcher", plain, "--server-ca-file", caFile}, "the server does not speak TLS: leave --server-ca-file out"},
		"send without TLS":   {[]string{"send", "car-1", "--at", "48,16", "--timeout", "5s", "--ingest", secured}, "the server speaks TLS, and this command does not: set --server-ca-file"},
		"send with TLS":      {[]string{"send", "car-1", "--at", "48,16", "--timeout", "5s", "--ingest", plain, "--server-ca-file", caFile}, "the server does not speak TLS: leave --server-ca-file out"},
		"status without TLS": {[]string{"status", "--admin", admin.Listener.Addr().String()}, "set --server-ca-file"},
		"status with TLS":    {[]string{"status", "--admin", plainAdmin.Listener.Addr().String(), "--server-ca-file", caFile}, "leave --server-ca-file out"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runCLI(t, t.Context(), "", c.args...)
			require.NotEqual(t, exitOK, got.code)
			require.Contains(t, got.err, c.want)
		})
	}
}
