package rpcserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // taken from clients that compress
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/budget"
)

// healthInterval is how often health follows readiness.
const healthInterval = 250 * time.Millisecond

// Role is what a gRPC server serves.
type Role struct {
	// Name is the role's, for the log.
	Name string
	// Register adds the role's services.
	Register func(grpc.ServiceRegistrar)
	// Options are what is special about the role's traffic: sizes, windows.
	// They come after the server's own and win over them.
	Options []grpc.ServerOption
	// Credentials secure the role's connections; nil means that nothing does.
	Credentials credentials.TransportCredentials
	// Codec encodes the role's messages; nil means gRPC's own.
	Codec encoding.CodecV2
	// Window is what a client may send ahead on one stream, in bytes, as
	// Options set it; zero means gRPC's 64 KiB.
	Window int64
	// Large are the full names of methods whose answers may be large: few are
	// at work at a time, and none for a client that does not read.
	Large []string
	// LargeAtWork is how many of them; zero means one for each CPU, which suits
	// handlers that compute.
	LargeAtWork int
	// Cost estimates the CPU time of a call: what its request shows when answer is
	// nil, else what an answer shows beyond that. Nil means that no call is dear.
	Cost func(req, answer any) time.Duration
	// MaxConnStreams and PingInterval, when not zero, replace the settings of
	// the same names.
	MaxConnStreams int
	PingInterval   time.Duration
	// Ready reports whether the role serves; health follows it.
	Ready func() bool
	// Run is the role's own work. It blocks until its context is done. Nil
	// means that there is none.
	Run func(context.Context) error
}

// Server serves one role. Build it with Group.New; Serve may be called once.
type Server struct {
	group *Group
	role  Role
	guard *auth.Server
	grpc  *grpc.Server
	// memory serves this process's gateway, over connections in memory.
	memory *grpc.Server
	checks *health.Server

	oneRequest map[string]bool // methods whose callers send one message
	methods    map[string]*methodMetrics
	large      map[string]bool
	readings   *budget.Pool
	answers    *answers
	costs      *costs
	rates      *rates
	working    *semaphore.Weighted // large calls at work
	side       *semaphore.Weighted // streams of health and reflection
	evicted    int64               // of readings, as far as counted; the sweep's
}

// New builds a server for a role. It opens nothing.
func (g *Group) New(role Role) *Server {
	c := g.cfg
	role.Window = cmp.Or(role.Window, 64<<10)
	if role.Codec == nil {
		role.Codec = encoding.GetCodecV2(proto.Name)
	}
	s := &Server{
		group: g, role: role, guard: g.guard.Server(role.Name), checks: health.NewServer(),
		oneRequest: map[string]bool{}, large: map[string]bool{},
		readings: budget.New(c.ReadingBytes, readingGrace), answers: newAnswers(), costs: newCosts(&c, time.Now), rates: newRates(&c, time.Now),
		working: semaphore.NewWeighted(int64(cmp.Or(role.LargeAtWork, runtime.NumCPU()))), side: semaphore.NewWeighted(int64(c.MaxSideStreams)),
	}
	for _, method := range role.Large {
		s.large[method] = true
	}
	options := append(s.options(), role.Options...)
	public := []grpc.ServerOption{
		grpc.InTapHandle(s.tap),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: cmp.Or(role.PingInterval, c.PingInterval), Timeout: 20 * time.Second,
			MaxConnectionIdle: c.MaxConnIdle, MaxConnectionAge: c.MaxConnAge, MaxConnectionAgeGrace: c.ConnAgeGrace,
		}),
	}
	if role.Credentials != nil {
		public = append(public, grpc.Creds(role.Credentials))
	}
	// Options of the same kind: the last one counts.
	options = append(options, grpc.ForceServerCodecV2(chargingCodec{role.Codec}))
	s.grpc = grpc.NewServer(append(public, options...)...)
	// Not bounded per connection: the gateway has one for all of its callers,
	// and bounds them itself.
	s.memory = grpc.NewServer(append(options, grpc.MaxConcurrentStreams(math.MaxInt32))...)
	for _, server := range []*grpc.Server{s.grpc, s.memory} {
		role.Register(server)
		healthpb.RegisterHealthServer(server, s.checks)
	}
	if c.Reflection {
		reflection.Register(s.grpc)
	}
	for name, service := range s.grpc.GetServiceInfo() {
		for _, m := range service.Methods {
			s.oneRequest["/"+name+"/"+m.Name] = !m.IsClientStream
		}
	}
	s.methods = g.calls.ofMethods(s.grpc)
	s.showHealth()
	return s
}

// options are those of every gRPC server.
func (s *Server) options() []grpc.ServerOption {
	c := s.group.cfg
	return []grpc.ServerOption{
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(c.HandshakeTimeout),
		grpc.MaxHeaderListSize(uint32(c.MaxHeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(cmp.Or(s.role.MaxConnStreams, c.MaxConnStreams))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: c.MinPing, PermitWithoutStream: true}),
		// The first is the outermost: what a panic becomes is counted by code. Calls with
		// one request and one answer are short, so that they have no chain, of which
		// each link costs a closure and a look-up of what the one before it knew.
		grpc.UnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.countStream, s.guard.AdmitStream, s.stream, s.guard.CheckStream),
	}
}

// Serve answers on the listeners, and to this process's gateway on those in
// memory, and runs the role, until ctx is done. Then health fails, the role
// stops, and open calls may end within drain, which is asked at that moment; those
// that do not are cut off.
func (s *Server) Serve(ctx context.Context, listeners, memory []net.Listener, drain func() time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, len(listeners)+len(memory))
	serve := func(server *grpc.Server, l net.Listener) {
		err := server.Serve(l)
		if err != nil {
			err = fmt.Errorf("serve %s on %s: %w", s.role.Name, l.Addr(), err)
		}
		served <- err
	}
	for _, l := range listeners {
		go serve(s.grpc, listener{l, s.answers})
	}
	for _, l := range memory {
		go serve(s.memory, l)
	}
	roleDone := make(chan error, 1)
	go func() { roleDone <- s.run(ctx) }()
	var watchers sync.WaitGroup
	watchers.Go(func() { s.watchHealth(ctx) })
	sweepCtx, stopSweep := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSweep()
	watchers.Go(func() { s.sweep(sweepCtx) })

	var faults []error
	ended := 0
	select {
	case err := <-served:
		ended++
		cancel()
		faults = append(faults, err, <-roleDone)
	case err := <-roleDone:
		faults = append(faults, err)
	}
	cancel()
	s.stop(drain())
	stopSweep()
	watchers.Wait()
	for ; ended < cap(served); ended++ {
		faults = append(faults, <-served)
	}
	return errors.Join(faults...)
}

func (s *Server) run(ctx context.Context) error {
	if s.role.Run == nil {
		<-ctx.Done()
		return nil
	}
	return s.role.Run(ctx)
}

// stop lets open calls end for drain and cuts off the others.
func (s *Server) stop(drain time.Duration) {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
		s.memory.GracefulStop()
	}()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-drained:
		return
	case <-timer.C:
	}
	s.group.logger.Warn("calls are cut off: they did not end in time", "role", s.role.Name, "drain", drain.String())
	s.grpc.Stop()
	s.memory.Stop()
	<-drained
}

// watchHealth has the health service follow readiness until ctx is done; then
// it fails for good.
func (s *Server) watchHealth(ctx context.Context) {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		s.showHealth()
		select {
		case <-ctx.Done():
			s.checks.Shutdown()
			return
		case <-ticker.C:
		}
	}
}

// showHealth sets the status of the server as a whole, "", and of each service.
func (s *Server) showHealth() {
	is := healthpb.HealthCheckResponse_NOT_SERVING
	if s.role.Ready == nil || s.role.Ready() {
		is = healthpb.HealthCheckResponse_SERVING
	}
	s.checks.SetServingStatus("", is)
	for name := range s.grpc.GetServiceInfo() {
		s.checks.SetServingStatus(name, is)
	}
}
