package app

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/httpserver"
)

// runAdmin serves metrics, health, the configuration in force and profiles
// until ctx is done. Health fails once failure reports why the process must end,
// readiness also while unready reports why a role does not serve. It is for
// operators: keep it from the public.
func runAdmin(ctx context.Context, server *httpserver.Group, l net.Listener, guard func(http.Handler) http.Handler, secure *tls.Config, cfg Config, registry *prometheus.Registry, unready func() string, failure func() error) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := failure(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := failure(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if why := unready(); why != "" {
			http.Error(w, "not ready: "+why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_ = config.Print(w, cfg)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	// Without /debug/pprof/cmdline: a secret may have come as a flag.
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)

	return server.Serve(ctx, l, httpserver.KnownHosts(guard(mux), cfg.Server.AdminHosts), httpserver.Options{Name: "admin", TLS: secure, ReadTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute})
}
