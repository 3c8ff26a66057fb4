package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/throttle"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Appender is what ingest needs of the log; eventlog.Log has it.
type Appender interface {
	// Append queues a record for one partition, as in eventlog.Appender.
	Append(ctx context.Context, topic string, partition int32, rec eventlog.Record, done eventlog.Completion) error
}

// Server is the ingest role. Its methods are safe for concurrent use.
type Server struct {
	starlingv1.UnimplementedIngestServiceServer

	cfg        Config
	log        Appender
	partitions int32
	metrics    *metrics
	logger     *slog.Logger
	clock      func() time.Time
	mono       func() time.Duration
	clocks     *clocks
	appends    appends
	budget     *budget
	rates      *rates

	stampInterval time.Duration
	judgedAt      int64 // the watch's own: tick of its last look at the clocks
	// Warnings of the clock, by the monotonic one, and of appends that failed.
	clockWarning, failure throttle.Throttle

	// tick is the time of the watch's last round in nanoseconds of a monotonic
	// clock, never zero: precise enough for timeouts, and free to read.
	tick    atomic.Int64
	started time.Time

	mu       sync.Mutex
	streams  map[*stream]struct{}
	draining bool
	// calls counts goroutines of streams and calls. A stream's or call's first
	// is added under mu and not while draining, further ones by those counted
	// already, so that it is never added to from zero while it is waited for.
	calls sync.WaitGroup
}

// Deps are what a server works with.
type Deps struct {
	// Log is what reports are appended to.
	Log Appender
	// Partitions is the number of partitions of the log's topics.
	Partitions int32
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// Now is the wall clock against which device times are judged; nil means
	// time.Now.
	Now func() time.Time
	// Monotonic is the clock that no one steps, as time since some start, by which
	// the evidence about the wall clock is kept; nil means the process's.
	Monotonic func() time.Duration
	// StampInterval is the time between two looks at the log's stamps; zero means
	// 10 s.
	StampInterval time.Duration
}

// New returns a server that does nothing until Run. It fails when cfg breaks a
// rule or the registerer has another server's metrics.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Partitions < 1 {
		return nil, fmt.Errorf("ingest: %d partitions", deps.Partitions)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: deps.Log, partitions: deps.Partitions, metrics: m, logger: deps.Logger, clock: deps.Now,
		budget: newBudget(cfg.Limits.ServerBytes, m.inFlightBytes), rates: newRates(&cfg.Limits),
		started: time.Now(), streams: map[*stream]struct{}{}, clockWarning: throttle.Throttle{Interval: warnInterval}, failure: throttle.Throttle{Interval: time.Second},
		stampInterval: cmp.Or(deps.StampInterval, stampInterval), mono: deps.Monotonic,
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.mono == nil {
		s.mono = func() time.Duration { return time.Since(s.started) }
	}
	s.tick.Store(1)
	s.appends.mono = s.mono
	s.appends.refuser, _ = deps.Log.(Refuser)
	s.clocks = newClocks(cfg.Validation, s.clock, s.mono)
	return s, nil
}

// Register adds the service to a gRPC server, which must have been built with
// ServerOptions, and bounds calls and silence of a connection by
// limits.max_conn_streams and limits.ping_interval.
func (s *Server) Register(r grpc.ServiceRegistrar) { starlingv1.RegisterIngestServiceServer(r, s) }

// Flow control windows of HTTP/2. gRPC reads a stream ahead of the handler by
// at most its window, which so bounds what a stream that is not read can hold.
const (
	// WindowBytes is the window of a stream.
	WindowBytes     = 64 << 10
	connWindowBytes = 1 << 20
)

// ServerOptions are the options that a gRPC server with this service needs.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.Codec()),
		// Up to twice the bound a message is read and refused with a reason;
		// beyond that gRPC itself ends the stream.
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes()),
		grpc.StaticStreamWindowSize(WindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.ReadBufferSize(16 << 10),
	}
}

// Run watches timeouts until ctx is done. Then it takes no more reports, lets
// every stream acknowledge what the log settles within flush_wait, ends all
// with UNAVAILABLE and returns nil when the last has ended.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.watchInterval())
	defer ticker.Stop()
	var stamps sync.WaitGroup
	stamps.Go(func() { s.watchStamps(ctx) })
	defer stamps.Wait()
	for {
		select {
		case <-ctx.Done():
			s.drain(ticker)
			return nil
		case <-ticker.C:
			s.watch()
		}
	}
}

// finishAll lets no more streams begin and ends those that are open. It returns how
// many these are.
func (s *Server) finishAll() (open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for st := range s.streams {
		st.finish(s.shuttingDown())
	}
	return len(s.streams)
}

// drain ends all streams and waits for them and for the calls under way.
func (s *Server) drain(ticker *time.Ticker) {
	s.logger.Info("ending open streams", "streams", s.finishAll())
	ended := make(chan struct{})
	go func() { s.calls.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return
		case <-ticker.C:
			s.watch()
		}
	}
}

func (s *Server) shuttingDown() error {
	return s.retryLater(codes.Unavailable, reasonShuttingDown, "the server is shutting down")
}

// begin counts a stream or call in, unless the server is draining.
func (s *Server) begin(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return s.shuttingDown()
	}
	if st != nil {
		if len(s.streams) >= s.cfg.Limits.MaxStreams {
			return s.retryLater(codes.ResourceExhausted, reasonTooManyStreams, "too many open streams")
		}
		s.streams[st] = struct{}{}
		s.metrics.streams.Set(float64(len(s.streams)))
	}
	s.calls.Add(1)
	return nil
}

// forget takes an ended stream off the list.
func (s *Server) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	s.metrics.streams.Set(float64(len(s.streams)))
}
