package app

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/starling-fleet/starling/internal/httpserver"
)

// The admin server shows no secret, whatever is asked, and answers under no name
// that is not its own.
func TestAdminShowsNoSecretAndKnowsItsNames(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kafka.SASLUser, cfg.Kafka.SASLPassword = "starling", "hunter2"
	cfg.Server.AdminHosts = []string{"admin.fleet"}
	registry := prometheus.NewRegistry()
	group, err := httpserver.NewGroup(httpserver.Deps{Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- runAdmin(ctx, group, l, func(h http.Handler) http.Handler { return h }, nil, cfg, registry, func() string { return "" }, func() error { return nil })
	}()
	defer func() { cancel(); require.NoError(t, <-ended) }()

	get := func(path, host string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+path, nil)
		require.NoError(t, err)
		if host != "" {
			req.Host = host
		}
		answer, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(body)
	}
	for _, path := range []string{"/config", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		code, body := get(path, "")
		require.Equal(t, http.StatusOK, code, path)
		require.NotContains(t, body, "hunter2", path)
		code, body = get(path, "evil.example:7602")
		require.Equal(t, http.StatusMisdirectedRequest, code, path)
		require.NotContains(t, body, "starling_", path)
		code, _ = get(path, "admin.fleet:7602")
		require.Equal(t, http.StatusOK, code, path)
	}
	code, _ := get("/debug/pprof/cmdline", "")
	require.Equal(t, http.StatusNotFound, code)
	_, body := get("/config", "")
	require.Contains(t, body, "sasl_user: starling")
	require.Contains(t, body, "# kafka.sasl_password is set and not shown")
}

// Without proof of identity no server listens anywhere but on loopback.
func TestDevelopmentIsOnLoopback(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dev = true
	cfg.Server.MetricsListen = "localhost:7604"
	require.NoError(t, cfg.Validate())
	for name, addr := range map[string]*string{
		"ingest_listen": &cfg.Server.IngestListen, "matcher_listen": &cfg.Server.MatcherListen, "json_listen": &cfg.Server.JSONListen,
		"admin_listen": &cfg.Server.AdminListen, "metrics_listen": &cfg.Server.MetricsListen,
	} {
		for _, open := range []string{"0.0.0.0:1", ":1", "[::]:1", "10.0.0.1:1", "example.com:1"} {
			before := *addr
			*addr = open
			require.ErrorContains(t, cfg.Validate(), name+` is "`+open+`": with --dev it must be on loopback`)
			*addr = before
		}
	}
	cfg.Dev, cfg.Server.AdminListen = false, "0.0.0.0:7602"
	cfg.Auth.KeysFile, cfg.Auth.Issuer = "keys.pem", "https://id.example"
	require.ErrorContains(t, cfg.Validate(), "tokens must not be sent in the clear")
	cfg.TLS.BehindProxy = true
	require.NoError(t, cfg.Validate())
	cfg.TLS.BehindProxy, cfg.TLS.CertFile, cfg.TLS.KeyFile = false, "cert.pem", "key.pem"
	require.NoError(t, cfg.Validate())
}
