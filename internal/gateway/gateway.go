package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/cors"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
	handlers "github.com/starling-fleet/starling/internal/gateway/handlers"
	"github.com/starling-fleet/starling/internal/httpserver"
	"github.com/starling-fleet/starling/schemas/openapi"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// minGzipBytes is the smallest answer that is compressed: below it, the headers
// are most of what is sent.
const minGzipBytes = 256

// Gateway answers JSON over HTTP. Build it with New, add the services, then Serve.
type Gateway struct {
	cfg   Config
	guard *auth.HTTP
	tls   *tls.Config
	// loopback is Deps.Loopback.
	loopback bool
	mux      *runtime.ServeMux
	known    queries
	routes   routes
	metrics  *metrics
	logger   *slog.Logger
	pipes    []*pipe
	open     atomic.Int64
	// What bodies and large answers may hold.
	bodies, answers *budget.Pool
	beginning       beginning
}

// Deps are what a gateway works with.
type Deps struct {
	// Guard lets callers in.
	Guard *auth.Guard
	// TLS secures the connections; nil means that nothing does.
	TLS *tls.Config
	// Loopback refuses requests to any Host but this machine's loopback: where
	// everybody is let in, a web page whose name resolves to this server (DNS
	// rebinding) could read the fleet.
	Loopback   bool
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// New returns a gateway without services. It opens nothing.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the JSON gateway's metrics: %w", err)
	}
	known := queries{}
	drop := func(string) (string, bool) { return "", false }
	json := newJSON()
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &json),
		runtime.WithMarshalerOption(typeSSE, &events{json}),
		runtime.WithMiddlewares(known.check),
		runtime.WithErrorHandler(handleError),
		runtime.WithStreamErrorHandler(streamError),
		runtime.WithRoutingErrorHandler(handleRouting),
		// Authorization is passed on without this matcher; nothing else can
		// become metadata, so no other header can pose as it.
		runtime.WithIncomingHeaderMatcher(drop),
		runtime.WithOutgoingHeaderMatcher(drop),
		runtime.WithOutgoingTrailerMatcher(drop),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisableChunkedEncoding(),
	)
	all := routes{}
	all.add(documentPath, http.MethodGet, http.MethodHead)
	callers := deps.Guard.HTTP("JSON")
	callers.Refuse = refuse
	return &Gateway{
		cfg: cfg, guard: callers, tls: deps.TLS, loopback: deps.Loopback, mux: mux, known: known, routes: all, metrics: m, logger: deps.Logger,
		bodies: budget.New(cfg.BodyBytes, budgetGrace), answers: budget.New(cfg.AnswerBytes, budgetGrace),
		beginning: beginning{atWork: semaphore.NewWeighted(maxBeginning), owners: budget.NewShares[any](math.MaxInt)},
	}, nil
}

// AddIngest offers the ingest service. The gRPC server that has it must serve
// the listener that is returned, and ends it when it stops. A request that has
// more than maxRequestBytes as protobuf is refused, as that server would.
func (g *Gateway) AddIngest(maxRequestBytes int) (net.Listener, error) {
	return g.add("ingest", maxRequestBytes, starlingv1.File_starling_v1_ingest_proto, func(conn *grpc.ClientConn) error {
		return handlers.RegisterIngestServiceHandler(context.Background(), g.mux, conn)
	})
}

// AddFleet offers the fleet service, as AddIngest does the ingest service.
func (g *Gateway) AddFleet(maxRequestBytes int) (net.Listener, error) {
	return g.add("fleet", maxRequestBytes, starlingv1.File_starling_v1_fleet_proto, func(conn *grpc.ClientConn) error {
		return handlers.RegisterFleetServiceHandler(context.Background(), g.mux, conn)
	})
}

// AddRides offers the ride service, as AddIngest does the ingest service.
func (g *Gateway) AddRides(maxRequestBytes int) (net.Listener, error) {
	return g.add("rides", maxRequestBytes, starlingv1.File_starling_v1_ride_proto, func(conn *grpc.ClientConn) error {
		return handlers.RegisterRideServiceHandler(context.Background(), g.mux, conn)
	})
}

// AddHistory offers the history service, as AddIngest does the ingest service.
func (g *Gateway) AddHistory(maxRequestBytes int) (net.Listener, error) {
	return g.add("history", maxRequestBytes, starlingv1.File_starling_v1_history_service_proto, func(conn *grpc.ClientConn) error {
		return handlers.RegisterHistoryServiceHandler(context.Background(), g.mux, conn)
	})
}

func (g *Gateway) add(name string, maxRequestBytes int, file protoreflect.FileDescriptor, register func(*grpc.ClientConn) error) (net.Listener, error) {
	p, err := newPipe(name, pipeCalls{g.cfg.CallTimeout, maxRequestBytes})
	if err != nil {
		return nil, err
	}
	g.pipes = append(g.pipes, p)
	if err := register(p.ClientConn); err != nil {
		return nil, fmt.Errorf("offer the %s service as JSON: %w", name, err)
	}
	for i := range file.Services().Len() {
		g.known.learn(file.Services().Get(i))
		g.routes.learn(file.Services().Get(i))
	}
	return p.listener, nil
}

// Handler answers requests. It is safe for concurrent use.
func (g *Gateway) Handler() http.Handler {
	// Not http.ServeMux, which redirects paths that it thinks unclean.
	root := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == documentPath {
			serveDocument(w, r)
			return
		}
		g.mux.ServeHTTP(w, r)
	})
	compress, err := gzhttp.NewWrapper(gzhttp.ContentTypes([]string{typeJSON}), gzhttp.MinSize(minGzipBytes))
	if err != nil {
		panic(err) // the options are constants
	}
	// Who is not let in gets no part of a budget. Which calls a caller may make
	// is the gRPC server's to decide, which gets the token too.
	h := g.guard.Wrap(g.limit(whole(root, compress(root))))
	if len(g.cfg.AllowOrigins) > 0 {
		h = cors.New(cors.Options{
			AllowedOrigins: g.cfg.AllowOrigins,
			AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
			AllowedHeaders: []string{"Authorization", "Content-Type", "Grpc-Timeout", "Last-Event-ID"},
			ExposedHeaders: []string{"Retry-After"},
			MaxAge:         int(time.Hour / time.Second),
		}).Handler(h)
	}
	return g.measure(g.knownHosts(h))
}

// knownHosts refuses requests to other hosts than the gateway answers for.
func (g *Gateway) knownHosts(next http.Handler) http.Handler {
	if !g.loopback {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !httpserver.LoopbackHost(r.Host) {
			writeStatus(w, http.StatusMisdirectedRequest, newStatus(codes.PermissionDenied, reasonUnknownHost,
				"in development mode the server answers to localhost and loopback addresses only"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// whole hands streams to plain and the rest to compressed: compression keeps
// back the messages that a watch is to send at once.
func whole(plain, compressed http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isStream(r.URL.Path) {
			plain.ServeHTTP(w, r)
			return
		}
		compressed.ServeHTTP(w, r)
	})
}

// isStream reports whether a path is that of a method with a stream of answers.
func isStream(path string) bool {
	return strings.Contains(path, ":watch") || strings.Contains(path, ":subscribe") || strings.HasSuffix(path, ":track") ||
		path == "/v1/history:cellStats" || path == "/v1/history:visits"
}

func serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(openapi.Document)
}

// limit refuses what a service must not see: too many requests, paths and methods
// that there are not, and bodies that are too large, too slow or not JSON.
func (g *Gateway) limit(next http.Handler) http.Handler {
	routed := g.route(g.admit(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer g.open.Add(-1)
		if open := g.open.Add(1); open > int64(g.cfg.MaxOpenRequests) {
			writeStatus(w, http.StatusTooManyRequests, tooMany(g.cfg.MaxOpenRequests))
			return
		}
		// What is not for everyone is for nobody's cache.
		w.Header().Set("Cache-Control", "no-store")
		if isStream(r.URL.Path) {
			w.Header().Set("X-Accel-Buffering", "no") // nginx is to pass each message on
		}
		routed.ServeHTTP(w, r)
	})
}

// admit takes the header of a call's time, its body and what its answer may hold.
func (g *Gateway) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := wrongTimeout(r.Header); f != nil {
			writeStatus(w, http.StatusBadRequest, f.status())
			return
		}
		if !g.takeBody(w, r) {
			return
		}
		r, done, ok := g.admitLarge(w, r)
		if !ok {
			return
		}
		defer done()
		next.ServeHTTP(w, r)
	})
}

// takeBody reads the body, so that its size and its time are bounded and a call
// begins only with all of it. It answers and returns false when it is refused.
func (g *Gateway) takeBody(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		if r.ContentLength != 0 {
			writeStatus(w, http.StatusBadRequest, (&fault{"body", "only a POST has a body; here, parameters are in the URL"}).status())
			return false
		}
		return true
	}
	if r.URL.RawQuery != "" {
		parameter, _, _ := strings.Cut(r.URL.RawQuery, "=")
		writeStatus(w, http.StatusBadRequest, (&fault{parameter, "a POST has its parameters in the body"}).status())
		return false
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != typeJSON || r.Header.Get("Content-Encoding") != "" {
		// Another type would let a web page send without the browser asking
		// first whether it may.
		writeStatus(w, http.StatusUnsupportedMediaType, newStatus(codes.InvalidArgument, reasonNotJSON, "the header content-type must be application/json, without a content-encoding"))
		return false
	}
	// Where the connection has no deadlines (a test's recorder) there is none.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(g.cfg.ReadTimeout))
	read, err := g.readBody(w, r, control)
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
		r.Body = &body{Reader: bytes.NewReader(read)}
		return true
	}
	var oversize *http.MaxBytesError
	switch {
	case errors.Is(err, errBusy):
		writeStatus(w, http.StatusTooManyRequests, busy("bodies are being read"))
	case errors.As(err, &oversize):
		writeStatus(w, http.StatusRequestEntityTooLarge, tooLarge(fmt.Sprintf("the body is larger than %d bytes", oversize.Limit)))
	case errors.Is(err, os.ErrDeadlineExceeded):
		writeStatus(w, http.StatusRequestTimeout, newStatus(codes.DeadlineExceeded, reasonTooSlow,
			fmt.Sprintf("the body did not come within %s", g.cfg.ReadTimeout)))
	default:
		writeStatus(w, http.StatusBadRequest, newStatus(codes.InvalidArgument, reasonInvalidRequest, "the body broke off"))
	}
	return false
}

// Serve answers requests on l by a server of the group until ctx is done; then it
// lets open ones end for drain. Watches end when their gRPC server does, which is
// to be stopped first.
func (g *Gateway) Serve(ctx context.Context, group *httpserver.Group, l net.Listener, drain time.Duration) error {
	defer g.closePipes()
	return group.Serve(ctx, l, g.Handler(), httpserver.Options{
		Name: "JSON", TLS: g.tls, ReadTimeout: g.cfg.ReadTimeout, IdleTimeout: g.cfg.IdleTimeout, Drain: drain,
	})
}

func (g *Gateway) closePipes() {
	for _, p := range g.pipes {
		_ = p.Close()
		_ = p.listener.Close()
	}
}
