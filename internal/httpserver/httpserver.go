// Package httpserver is the one HTTP server of Starling, for the JSON gateway
// and the operator's endpoints: timeouts, header sizes, recovery from panics and
// a stop that drains.
//
// Imported by cmd/starling/app and internal/gateway; imports nothing of ours.
package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are what differs between HTTP servers.
type Options struct {
	// Name is the server's, for the log and the metrics' label server.
	Name string
	// TLS secures the connections; nil means that nothing does.
	TLS *tls.Config
	// ReadTimeout bounds how long the headers of a request may take.
	ReadTimeout time.Duration
	// IdleTimeout is how long a connection may be without a request.
	IdleTimeout time.Duration
	// Drain is how long a stop waits for open requests; zero cuts them off.
	Drain time.Duration
}

// maxHeaderBytes bounds the headers of a request.
const maxHeaderBytes = 16 << 10

// Group builds the HTTP servers of one process, which share metrics.
type Group struct {
	logger *slog.Logger
	panics *prometheus.CounterVec
}

// Deps are what a group works with.
type Deps struct {
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// NewGroup registers the metrics of a process's HTTP servers.
func NewGroup(deps Deps) (*Group, error) {
	g := &Group{logger: deps.Logger, panics: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_http_panics_total", Help: "Requests whose handler panicked, by server. Each is logged with its stack and answered 500.",
	}, []string{"server"})}
	if err := deps.Registerer.Register(g.panics); err != nil {
		return nil, fmt.Errorf("register the HTTP servers' metrics: %w", err)
	}
	return g, nil
}

// Serve answers requests on l until ctx is done, then lets open ones end for
// the drain time and cuts off the others. It returns nil after a stop that was
// asked for.
func (g *Group) Serve(ctx context.Context, l net.Listener, h http.Handler, o Options) error {
	server := &http.Server{
		Handler:           g.recovering(o.Name, lastInChunks(h)),
		ReadHeaderTimeout: o.ReadTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.logger.With("server", o.Name).Handler(), slog.LevelWarn),
	}
	if o.TLS != nil {
		l = tls.NewListener(l, o.TLS)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		_ = server.Close()
		return fmt.Errorf("serve %s on %s: %w", o.Name, l.Addr(), err)
	case <-ctx.Done():
	}
	if !drained(ctx, server, o.Drain) {
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s on %s: %w", o.Name, l.Addr(), err)
	}
	return nil
}

// lastInChunks ends a connection with the answer to a request whose body comes in
// chunks: one that has a Content-Length too looks the same here, and what a proxy
// before the server takes for its body may be the next request (RFC 9112, 6.1).
func lastInChunks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func drained(ctx context.Context, server *http.Server, drain time.Duration) bool {
	if drain <= 0 {
		return false
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	return server.Shutdown(limited) == nil
}

// recovering turns a handler's panic into an answer.
func (g *Group) recovering(server string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p) // a handler's way to cut off its client
			}
			g.panics.WithLabelValues(server).Inc()
			g.logger.LogAttrs(r.Context(), slog.LevelError, "a request's handler panicked",
				slog.String("server", server), slog.String("method", r.Method), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			// If the answer has begun this changes nothing but the connection,
			// which net/http then closes.
			w.Header().Set("Connection", "close")
			http.Error(w, "the server failed to answer; it has logged why", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}
