package app

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/certs"
	"github.com/starling-fleet/starling/internal/httpserver"
)

// serves reports whether a process has a listener.
func serves(cfg *Config, roles []Role) bool {
	return cfg.Server.AdminListen != "" || cfg.Server.MetricsListen != "" || slices.ContainsFunc(roles, func(r Role) bool { return r != Tracker })
}

// identity prepares what stands before the process's servers.
func (a *App) identity(ctx context.Context) (*auth.Guard, error) {
	cfg := a.cfg.Auth
	if !serves(&a.cfg, a.roles) {
		return auth.Open(), nil // before no listener
	}
	if a.cfg.TLS.On() {
		var err error
		if a.certs, err = certs.New(a.cfg.TLS, certs.Deps{Registerer: a.registry, Logger: a.logger.With("component", "certs")}); err != nil {
			return nil, err
		}
	}
	g, err := auth.New(cfg, auth.Deps{Dev: a.cfg.Dev, Registerer: a.registry, Logger: a.logger.With("component", "auth")})
	if err != nil {
		return nil, err
	}
	if err := g.Start(ctx); err != nil {
		return nil, err
	}
	a.OnReload("keys", func() error { return g.Reload(context.WithoutCancel(ctx)) })
	if a.certs != nil {
		a.OnReload("certificates", a.certs.Reload)
	}
	if !g.Asks() {
		a.logger.Warn("development mode: everybody on this machine may do everything")
	}
	return g, nil
}

// identityUnits keep the keys current, and serve metrics alone where that is
// set.
func (a *App) identityUnits(open opener) ([]unit, error) {
	units := []unit{{"identity", a.guard.Run}}
	if a.certs != nil {
		units = append(units, unit{"certificates", a.certs.Run})
	}
	if a.cfg.Server.MetricsListen == "" {
		return units, nil
	}
	l, err := open("metrics", a.cfg.Server.MetricsListen)
	if err != nil {
		return nil, err
	}
	a.metrics = l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	guard := a.guard.HTTP("metrics")
	guard.Need = func(string) (auth.Scopes, bool) { return auth.Metrics | auth.Operate, false }
	guard.Certificate = a.certs.Mutual("metrics")
	return append(units, unit{"metrics", func(ctx context.Context) error {
		return a.http.Serve(ctx, l, guard.Wrap(mux), httpserver.Options{Name: "metrics", TLS: a.certs.Web("metrics"), ReadTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute})
	}}), nil
}

// innerDialOptions are for connections from this process to others of ours.
func (a *App) innerDialOptions() []grpc.DialOption {
	options := a.guard.DialOptions()
	if a.certs != nil {
		options = append(options, grpc.WithTransportCredentials(a.certs.Client()))
	}
	return options
}

// MetricsAddr is where metrics alone are served, once Ready is closed; empty if
// the admin server has them.
func (a *App) MetricsAddr() string { return a.metrics }

// guardAdmin lets operators through to the admin server, and everybody to what
// an orchestrator asks.
func (a *App) guardAdmin(next http.Handler) http.Handler {
	guard := a.guard.HTTP("admin")
	guard.Need = func(path string) (auth.Scopes, bool) {
		switch path {
		case "/healthz", "/readyz":
			return 0, true
		case "/metrics":
			return auth.Metrics | auth.Operate, false
		}
		return auth.Operate, false
	}
	if a.cfg.Server.MetricsListen == "" {
		return guard.Wrap(next)
	}
	return guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			http.Error(w, "metrics are at server.metrics_listen", http.StatusNotFound)
			return
		}
		next.ServeHTTP(w, r)
	}))
}
