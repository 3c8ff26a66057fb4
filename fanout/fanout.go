package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/starling-fleet/starling/fanout/region"
	"github.com/starling-fleet/starling/matcher/eta"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Fanout is the role. Register its service with a gRPC server and call Run once.
type Fanout struct {
	starlingv1.UnimplementedFleetServiceServer

	cfg         Config
	regions     *region.Map
	names       []string
	groups      [][]replica // by region
	nextReplica atomic.Uint32
	eta         eta.Estimator
	logger      *slog.Logger
	metrics     *metrics
	calls       chan struct{} // has an element for each call at work
	watches     chan struct{}
	stopped     chan struct{} // closed when Run has ended
}

// replica is one matcher.
type replica struct {
	address string
	conn    *grpc.ClientConn
	client  starlingv1.FleetServiceClient
}

// windowBytes is the flow control window of a call; most answers fit into it.
const windowBytes = 256 << 10

// Deps are what a fan-out works with.
type Deps struct {
	// Regions are those of matcher.Config.
	Regions []string
	// Estimator ranks by expected arrival.
	Estimator  eta.Estimator
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	// DialOptions are added to those of the connections to matchers.
	DialOptions []grpc.DialOption
}

// New returns a fan-out that does nothing yet. It fails when cfg breaks a rule,
// the regions do, a region has no replica, or the registerer has another
// fan-out's metrics.
func New(cfg Config, deps Deps) (*Fanout, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("fanout configuration: %w", err)
	}
	earth, err := region.Parse(deps.Regions)
	if err != nil {
		return nil, fmt.Errorf("matcher configuration: regions: %w", err)
	}
	addresses, err := cfg.addresses(earth)
	if err != nil {
		return nil, fmt.Errorf("fanout configuration: %w", err)
	}
	f := &Fanout{
		cfg: cfg, regions: earth, names: earth.Names(), groups: make([][]replica, len(addresses)), eta: deps.Estimator, logger: deps.Logger,
		calls: make(chan struct{}, cfg.MaxCalls), watches: make(chan struct{}, cfg.MaxWatchers), stopped: make(chan struct{}),
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(windowBytes), grpc.WithStaticConnWindowSize(16 * windowBytes),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
	}, deps.DialOptions...)
	for number, group := range addresses {
		for _, address := range group {
			conn, err := grpc.NewClient(address, opts...)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("fanout configuration: replicas: connect to %q: %w", address, err), f.close())
			}
			f.groups[number] = append(f.groups[number], replica{address, conn, starlingv1.NewFleetServiceClient(conn)})
		}
	}
	if f.metrics, err = newMetrics(deps.Registerer, f); err != nil {
		return nil, errors.Join(fmt.Errorf("fanout: %w", err), f.close())
	}
	return f, nil
}

// Register adds FleetService to a gRPC server.
func (f *Fanout) Register(r grpc.ServiceRegistrar) { starlingv1.RegisterFleetServiceServer(r, f) }

// Run keeps connections to all replicas until ctx is done. Then open watch calls
// end and further calls are refused; the connections are closed when the calls at
// work, which have Config.Timeout, have been answered. It must be called once.
func (f *Fanout) Run(ctx context.Context) error {
	for _, group := range f.groups {
		for _, r := range group {
			r.conn.Connect()
		}
	}
	<-ctx.Done()
	close(f.stopped)
	for range cap(f.calls) {
		f.calls <- struct{}{} // one place after another falls free
	}
	if err := f.close(); err != nil {
		return fmt.Errorf("fanout: close connections: %w", err)
	}
	return nil
}

func (f *Fanout) close() error {
	var errs []error
	for _, group := range f.groups {
		for _, r := range group {
			errs = append(errs, r.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// Ready reports whether every region has a replica that is connected.
func (f *Fanout) Ready() bool {
	for _, group := range f.groups {
		connected := false
		for _, r := range group {
			state := r.conn.GetState()
			connected = connected || state == connectivity.Ready
			if state == connectivity.Idle { // a matcher closes old and unused connections
				r.conn.Connect()
			}
		}
		if !connected {
			return false
		}
	}
	return true
}
