package clickhouse_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/history/clickhouse"
	"github.com/starling-fleet/starling/internal/auth/mint"
	"github.com/starling-fleet/starling/internal/clickhousetest"
	"github.com/starling-fleet/starling/internal/config"
)

// tlsFront ends TLS before a server, as a balancer does: the engine of the tests
// speaks none itself.
func tlsFront(t *testing.T, to string, cfg *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				if in.(*tls.Conn).HandshakeContext(t.Context()) != nil {
					return // as the client learns
				}
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return l.Addr().String()
}

// certificates writes an authority's certificate, and a certificate of its making with
// its key, and returns their paths.
func certificates(t *testing.T, name string) (authority *mint.Authority, ca, cert, key string) {
	t.Helper()
	authority, err := mint.NewAuthority(name, time.Now().Add(time.Hour))
	require.NoError(t, err)
	certPEM, keyPEM, err := authority.Certificate(name, []string{"127.0.0.1"})
	require.NoError(t, err)
	dir := t.TempDir()
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, content := range map[string][]byte{ca: authority.PEM, cert: certPEM, key: keyPEM} {
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	return authority, ca, cert, key
}

// The native protocol goes over TLS with a certificate of this client's own and a
// password of a file; a server that is somebody else's, a client without a certificate
// and a wrong password are refused, and the password is in no error.
func TestTLSAndCredentials(t *testing.T) {
	s := clickhousetest.Start(t)
	authority, ca, cert, key := certificates(t, "clickhouse")
	_, strangersCA, _, _ := certificates(t, "stranger")
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	clients := x509.NewCertPool()
	require.True(t, clients.AppendCertsFromPEM(authority.PEM))
	front := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(clickhousetest.Password+"\n"), 0o600))
	cfg := clickhouse.DefaultConfig()
	cfg.Addrs, cfg.Username, cfg.PasswordFile = []string{tlsFront(t, s.Addr(), front)}, clickhousetest.User, secret
	cfg.TLS, cfg.TLSCAFile, cfg.TLSCertFile, cfg.TLSKeyFile, cfg.Database = true, ca, cert, key, "over_tls"
	require.NoError(t, cfg.Validate())
	_, err = clickhouse.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	rows := fixes(5, 0, 2, 20)
	for _, b := range batches(5, rows) {
		_, err := sinkOf(t, cfg).Write(t.Context(), b)
		require.NoError(t, err)
	}
	requireTracks(t, storeOf(t, cfg), rows)

	for name, change := range map[string]func(*clickhouse.Config){
		"certificate": func(c *clickhouse.Config) { c.TLSCAFile = strangersCA },
		"":            func(c *clickhouse.Config) { c.TLSCertFile, c.TLSKeyFile = "", "" },
		"516":         func(c *clickhouse.Config) { c.PasswordFile, c.Password = "", config.Secret("wrong-secret") },
	} {
		wrong := cfg
		change(&wrong)
		_, err := clickhouse.Migrate(t.Context(), wrong)
		require.ErrorContains(t, err, name)
		require.NotContains(t, err.Error(), "wrong-secret")
	}
}
