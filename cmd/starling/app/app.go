// Package app puts the roles together: it opens the log, starts the roles that
// a process has, and stops them in the order that loses nothing.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/certs"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/httpserver"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/schemas/topics"
)

// Role is one of the jobs that a process can have.
type Role string

// The roles, in the order of the way of a fix.
const (
	Ingest  Role = "ingest"
	Tracker Role = "tracker"
	Matcher Role = "matcher"
	Rides   Role = "rides"
	History Role = "history"
	// Fanout answers from matchers that are limited to regions. It needs no log.
	Fanout Role = "fanout"
)

// AllRoles is what `starling up` runs, and beside them history where it has
// somewhere to write.
func AllRoles() []Role { return []Role{Ingest, Tracker, Matcher, Rides} }

// withHistory adds history to all roles when it is on.
func withHistory(cfg *Config, roles []Role) []Role {
	if cfg.History.On() && slices.Equal(roles, AllRoles()) {
		return append(slices.Clone(roles), History)
	}
	return roles
}

// App is a process of Starling. Run may be called once.
type App struct {
	cfg      Config
	roles    []Role
	logger   *slog.Logger
	registry *prometheus.Registry
	ready    chan struct{}
	life     *life
	// The connections of the admin server, and of all others: set by Run.
	operators, clients *connections

	// What the process's servers share: set by Run.
	guard *auth.Guard
	certs *certs.Store // nil without TLS
	rpc   *rpcserver.Group
	http  *httpserver.Group

	addrs   map[Role]string
	admin   string
	metrics string
	json    string
}

// New checks the configuration and prepares a process; it opens nothing.
func New(cfg Config, roles []Role, logger *slog.Logger) (*App, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if slices.Contains(roles, Fanout) {
		if len(roles) > 1 {
			return nil, fmt.Errorf("roles %v: a fan-out is a process of its own", roles)
		}
		if err := cfg.Fanout.ValidateFor(cfg.Matcher.Regions); err != nil {
			return nil, err
		}
	} else if !cfg.OnKafka() && len(roles) < len(AllRoles()) {
		return nil, fmt.Errorf("kafka.brokers is empty: a role in a process of its own needs Kafka, because the local log belongs to one process (use `starling up`)")
	}
	if !cfg.Dev && !cfg.Auth.HasKeys() && serves(&cfg, roles) {
		return nil, auth.ErrNoIdentity
	}
	if slices.Contains(roles, History) && !cfg.History.On() {
		return nil, errors.New("history.lake_dir and history.clickhouse.addrs are empty: history has nowhere to write")
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &App{
		cfg:      cfg,
		roles:    withHistory(&cfg, roles),
		logger:   logger,
		registry: registry,
		ready:    make(chan struct{}),
		life:     newLife(registry),
		addrs:    map[Role]string{},
	}, nil
}

// Registry holds the process's metrics.
func (a *App) Registry() *prometheus.Registry { return a.registry }

// Ready is closed when every role of the process serves.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Addr is where a role listens, once Ready is closed; empty if it doesn't.
func (a *App) Addr(role Role) string { return a.addrs[role] }

// AdminAddr is where the admin server listens, once Ready is closed.
func (a *App) AdminAddr() string { return a.admin }

// JSONAddr is where the JSON gateway listens, once Ready is closed; empty if there
// is none.
func (a *App) JSONAddr() string { return a.json }

// Run opens the log, serves until ctx is done or a role fails, and stops in
// this order: ingest (no more acknowledgements than the log can back), tracker
// (flush and checkpoint), matcher, log. It returns nil after a stop that was
// asked for.
func (a *App) Run(ctx context.Context) error {
	announceStart(a.logger, a.roles)
	grpcLines.use(a.logger)
	defer a.life.watch(ctx)()
	keepFilesPrivate()
	raiseProcs()
	limitMemory(a.cfg.storeBytes(), memlimit.FromCgroup, a.logger)
	limit, err := raiseDescriptors()
	if err != nil {
		return err
	}
	share, err := shareDescriptors(limit, !a.has(Fanout) && !a.cfg.OnKafka(), a.cfg.Server.MaxConnections)
	if err != nil {
		return err
	}
	a.cfg.Local.MaxOpenFiles = share.storeFiles
	metrics := newConnectionMetrics(a.registry)
	a.clients = newConnections(share.connections, metrics, a.logger)
	a.operators = newConnections(adminConnections, metrics, a.logger)
	a.warnOfOpenSecrets()
	if a.guard, err = a.identity(ctx); err != nil {
		return err
	}
	if a.has(Fanout) {
		return a.serve(ctx, nil)
	}
	log, err := OpenLog(ctx, a.cfg, a.registry, a.logger)
	if err != nil {
		return err
	}
	return runOnLog(ctx, log, a.cfg.Server.DrainTimeout, func(ctx context.Context) error { return a.serve(ctx, log) })
}

// runOnLog serves on a log until ctx is done or serve fails, and closes the log.
//
// A log that has failed ends the process: what it holds is safe, and only opening
// it again shows what that is. The roles stop in good order then, but they get no
// longer than the drain timeout: a role may be held up in a call of the log that
// does not return. What still runs after that ends with the process, which is
// what a crash would do to it too.
func runOnLog(ctx context.Context, log eventlog.Log, drain time.Duration, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		err := serve(ctx)
		if closeErr := log.Close(); closeErr != nil && log.Err() == nil {
			err = errors.Join(err, fmt.Errorf("close the log: %w", closeErr))
		}
		served <- err
	}()
	select {
	case err := <-served:
		if failure := log.Err(); failure != nil {
			err = errors.Join(fmt.Errorf("the log failed: %w", failure), err)
		}
		return err
	case <-log.Failed():
	}
	failure := fmt.Errorf("the log failed: %w", log.Err())
	cancel()
	limit := time.NewTimer(drain)
	defer limit.Stop()
	select {
	case err := <-served:
		return errors.Join(failure, err)
	case <-limit.C:
		return errors.Join(failure, fmt.Errorf("the process ends without waiting any longer: some part of it has not stopped within %s", drain))
	}
}

// OpenLog opens the log that the configuration names. The caller closes it.
func OpenLog(ctx context.Context, cfg Config, reg prometheus.Registerer, logger *slog.Logger) (eventlog.Log, error) {
	if cfg.OnKafka() {
		log, err := kafkalog.Open(ctx, cfg.KafkaLog(), topics.All(), reg, logger.With("component", "kafkalog"))
		if err != nil {
			return nil, fmt.Errorf("open the log on Kafka %v: %w", cfg.Kafka.Brokers, err)
		}
		return log, nil
	}
	log, err := locallog.Open(cfg.LocalLog(), topics.All(), reg, logger.With("component", "locallog"))
	if err != nil {
		return nil, fmt.Errorf("open the local log: %w", err)
	}
	return log, nil
}

// listen opens a listener; Run's caller sees a taken port before anything starts.
func listen(name, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open the %s server on %s: %w", name, addr, err)
	}
	return l, nil
}

func (a *App) has(role Role) bool { return slices.Contains(a.roles, role) }
