package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/httpserver"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
	"github.com/starling-fleet/starling/tracker"
)

// serve runs the roles on an open log. Everything that can fail at the start
// (a taken port, a faulty setting) fails before anything runs.
func (a *App) serve(ctx context.Context, log eventlog.Log) error {
	if err := a.serverGroups(); err != nil {
		return err
	}
	var listeners []net.Listener
	open := func(name, addr string) (net.Listener, error) {
		l, err := listen(name, addr)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		if name == "admin" || name == "metrics" {
			return a.operators.on(name, l), nil
		}
		return a.clients.on(name, l), nil
	}
	units, unready, err := a.units(log, open)
	if err != nil {
		for _, l := range listeners {
			_ = l.Close()
		}
		return err
	}
	units = append(units, a.controlUnit(log)...)
	units = append(units, unit{"readiness", func(ctx context.Context) error {
		a.announce(ctx, func() bool { return unready() == "" })
		return nil
	}})
	return runUnits(ctx, a.logger, units)
}

// serverGroups prepares what the process's servers share.
func (a *App) serverGroups() (err error) {
	if a.rpc, err = rpcserver.NewGroup(a.cfg.Server.GRPC, rpcserver.Deps{Guard: a.guard, Registerer: a.registry, Logger: a.logger.With("component", "rpcserver")}); err != nil {
		return err
	}
	a.http, err = httpserver.NewGroup(httpserver.Deps{Registerer: a.registry, Logger: a.logger.With("component", "httpserver")})
	return err
}

// units sets up what the process consists of, and what returns why it does not serve
// yet or now, empty when it does. The
// units stop in reverse order: ingest first, the admin server last. The JSON gateway
// stops after the gRPC servers, whose last answers it passes on.
func (a *App) units(log eventlog.Log, open opener) (units []unit, unready func() string, err error) {
	unready = func() string { return "" }
	if a.cfg.Server.AdminListen != "" {
		l, err := open("admin", a.cfg.Server.AdminListen)
		if err != nil {
			return nil, nil, err
		}
		a.admin = l.Addr().String()
		units = append(units, unit{"admin", func(ctx context.Context) error {
			serving := func() string {
				if a.life.isStopping() {
					return "stopping"
				}
				return unready()
			}
			return runAdmin(ctx, a.http, l, a.withStatus(log, serving), a.certs.Web("admin"), a.cfg, a.registry, serving, func() error {
				if log == nil { // a fan-out
					return nil
				}
				return log.Err()
			})
		}})
	}
	more, err := a.identityUnits(open)
	if err != nil {
		return nil, nil, err
	}
	units = append(units, more...)
	json, more, err := a.jsonUnits(open)
	if err != nil {
		return nil, nil, err
	}
	units = append(units, more...)
	for _, role := range []struct {
		runs bool
		set  func(eventlog.Log, opener, *jsonGateway) ([]unit, func() string, error)
	}{
		{a.has(Matcher), a.matcherUnits},
		{a.has(Rides) && !a.has(Matcher), a.ridesUnits},
		{a.has(History), a.historyUnits},
		{a.has(Fanout), a.fanoutUnits},
		{a.has(Tracker), a.trackerUnits},
		{a.has(Ingest), a.ingestUnits},
	} {
		if !role.runs {
			continue
		}
		more, why, err := role.set(log, open, json)
		if err != nil {
			return nil, nil, err
		}
		others := unready
		unready = func() string { return joinReasons(others(), why()) }
		units = append(units, more...)
	}
	return units, unready, nil
}

func (a *App) matcherUnits(log eventlog.Log, open opener, json *jsonGateway) ([]unit, func() string, error) {
	l, err := open("matcher", a.cfg.Server.MatcherListen)
	if err != nil {
		return nil, nil, err
	}
	a.addrs[Matcher] = l.Addr().String()
	f, err := a.newFleet(log, a.addrs[Matcher])
	if err != nil {
		return nil, nil, err
	}
	inMemory, err := json.fleet()
	if err != nil {
		return nil, nil, err
	}
	m := f.matcher
	role := rpcserver.Role{
		Name: "matcher", Credentials: a.certs.Server("matcher"), Register: m.Register, Options: append(matcher.ServerOptions(), m.RegionOptions()...), Ready: a.life.whileRunning(m.Ready),
		Codec: wire.Codec(), Window: matcher.WindowBytes, Large: slices.Concat(largeAnswers, largeStreams), Cost: m.Cost,
	}
	var units []unit
	if f.positions != nil {
		units = append(units, unit{"positions in Redis", f.positions.run})
	}
	units = append(units, unit{"matcher", m.Run})
	unready := because(m.Ready, rebuilding)
	if f.rides != nil {
		// Dispatchers and riders find rides at the same port.
		more, err := json.rides()
		if err != nil {
			return nil, nil, err
		}
		inMemory = append(inMemory, more...)
		role.Register = func(r grpc.ServiceRegistrar) { m.Register(r); f.rides.Register(r) }
		units = append(units, unit{"rides", f.runRides})
		unready = func() string {
			return joinReasons(because(m.Ready, rebuilding)(), because(f.rides.Ready, takingUpRides)())
		}
	}
	// The roles stop before their server, so that watches end at once and hold
	// nothing up.
	return append([]unit{{"matcher server", a.serving(a.rpc.New(role), l, inMemory)}}, units...), unready, nil
}

// Why roles do not serve.
const (
	rebuilding    = "matcher: reading the fleet from the log"
	takingUpRides = "rides: joining its group, or reading rides from the log"
)

// because returns a reason while a role is not ready, and nothing when it is.
func because(ready func() bool, reason string) func() string {
	return func() string {
		if ready() {
			return ""
		}
		return reason
	}
}

// joinReasons puts two reasons together; either may be empty.
func joinReasons(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// largeAnswers are the methods whose answers may be megabytes.
var largeAnswers = []string{
	starlingv1.FleetService_ListVehicles_FullMethodName,
	starlingv1.FleetService_SearchArea_FullMethodName,
	starlingv1.FleetService_CountVehicles_FullMethodName,
}

// largeStreams are those whose first answer may be, and is computed at once.
var largeStreams = []string{
	starlingv1.FleetService_WatchArea_FullMethodName,
	starlingv1.FleetService_WatchVehicleCounts_FullMethodName,
}

func (a *App) fanoutUnits(_ eventlog.Log, open opener, json *jsonGateway) ([]unit, func() string, error) {
	l, err := open("fan-out", a.cfg.Server.MatcherListen)
	if err != nil {
		return nil, nil, err
	}
	estimator, err := a.cfg.Matcher.ETA.Estimator()
	if err != nil {
		return nil, nil, fmt.Errorf("set up the fan-out: matcher: eta: %w", err)
	}
	f, err := fanout.New(a.cfg.Fanout, fanout.Deps{Regions: a.cfg.Matcher.Regions, Estimator: estimator, Registerer: a.registry, Logger: a.logger.With("component", "fanout"), DialOptions: a.innerDialOptions()})
	if err != nil {
		return nil, nil, fmt.Errorf("set up the fan-out: %w", err)
	}
	inMemory, err := json.fleet()
	if err != nil {
		return nil, nil, err
	}
	a.addrs[Fanout] = l.Addr().String()
	server := a.rpc.New(rpcserver.Role{
		Name: "fan-out", Credentials: a.certs.Server("matcher"), Register: f.Register, Options: matcher.ServerOptions(), Ready: a.life.whileRunning(f.Ready),
		// Its handlers wait for matchers more than they compute.
		Codec: wire.Codec(), Window: matcher.WindowBytes, Large: largeAnswers, LargeAtWork: 64, Cost: fanout.Cost,
	})
	return []unit{{"fan-out server", a.serving(server, l, inMemory)}, {"fan-out", f.Run}}, because(f.Ready, "fan-out: a region has no matcher that is connected"), nil
}

func (a *App) trackerUnits(log eventlog.Log, _ opener, _ *jsonGateway) ([]unit, func() string, error) {
	t, err := tracker.New(a.cfg.Tracker, tracker.Deps{Log: log, Registerer: a.registry, Logger: a.logger.With("component", "tracker")})
	if err != nil {
		return nil, nil, fmt.Errorf("set up the tracker: %w", err)
	}
	return []unit{{"tracker", t.Run}}, because(t.Ready, "tracker: joining its group, or loading the partitions that fell to it"), nil
}

// historyUnits set up the history role and its server. The role stops behind the
// tracker, so that it still writes what that publishes last.
func (a *App) historyUnits(log eventlog.Log, open opener, json *jsonGateway) ([]unit, func() string, error) {
	l, err := open("history", a.cfg.Server.HistoryListen)
	if err != nil {
		return nil, nil, err
	}
	h, err := history.New(a.cfg.History, history.Deps{Log: log, Registerer: a.registry, Logger: a.logger.With("component", "history")})
	if err != nil {
		return nil, nil, fmt.Errorf("set up history: %w", err)
	}
	answers, err := a.cfg.History.OpenStore()
	if err != nil {
		return nil, nil, fmt.Errorf("set up history's queries: %w", err)
	}
	q, err := query.New(a.cfg.History.Query, query.Deps{Store: answers, Registerer: a.registry, Logger: a.logger.With("component", "history")})
	if err != nil {
		return nil, nil, err
	}
	inMemory, err := json.history()
	if err != nil {
		return nil, nil, err
	}
	a.addrs[History] = l.Addr().String()
	serve := a.serving(a.rpc.New(rpcserver.Role{Name: "history", Credentials: a.certs.Server("history"), Register: q.Register, Options: query.ServerOptions(), Ready: a.life.whileRunning(h.Ready)}), l, inMemory)
	server := func(ctx context.Context) error { return errors.Join(serve(ctx), answers.Close()) }
	return []unit{{"history", h.Run}, {"history server", server}}, because(h.Ready, "history: joining its group, or loading the partitions that fell to it"), nil
}

func (a *App) ingestUnits(log eventlog.Log, open opener, json *jsonGateway) ([]unit, func() string, error) {
	l, err := open("ingest", a.cfg.Server.IngestListen)
	if err != nil {
		return nil, nil, err
	}
	s, err := ingest.New(a.cfg.Ingest, ingest.Deps{Log: log, Partitions: log.Partitions(), Registerer: a.registry, Logger: a.logger.With("component", "ingest")})
	if err != nil {
		return nil, nil, fmt.Errorf("set up ingest: %w", err)
	}
	inMemory, err := json.ingest(a.cfg.Ingest.MaxRequestBytes())
	if err != nil {
		return nil, nil, err
	}
	a.addrs[Ingest] = l.Addr().String()
	limits := a.cfg.Ingest.Limits
	server := a.rpc.New(rpcserver.Role{
		Name: "ingest", Credentials: a.certs.Server("ingest"), Register: s.Register, Options: s.ServerOptions(), Ready: a.life.whileRunning(s.Ready), Run: s.Run,
		Codec: wire.Codec(), Window: ingest.WindowBytes, Cost: ingest.Cost,
		MaxConnStreams: limits.MaxConnStreams, PingInterval: limits.PingInterval,
	})
	unready := func() string {
		if why := s.Unready(); why != "" {
			return "ingest: " + why
		}
		return ""
	}
	return []unit{{"ingest", a.serving(server, l, inMemory)}}, unready, nil
}

// callsMayTake is how long open calls may go on at a stop: half of all the time
// that a stop has, for all servers together, so that trackers store their
// positions and the log is closed in the other half.
func (a *App) callsMayTake() time.Duration { return a.life.left(a.cfg.Server.DrainTimeout / 2) }

// serving is the run of a unit that is a gRPC server.
func (a *App) serving(server *rpcserver.Server, l net.Listener, inMemory []net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		return server.Serve(ctx, []net.Listener{l}, inMemory, a.callsMayTake)
	}
}

// announce closes ready when the matcher has caught up, the tracker has loaded its
// partitions and ingest takes reports, or when the fan-out is connected.
func (a *App) announce(ctx context.Context, ready func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	a.logger.Info("serving", "roles", a.roles, "ingest", a.addrs[Ingest], "matcher", a.addrs[Matcher], "fanout", a.addrs[Fanout], "history", a.addrs[History], "json", a.json, "admin", a.admin)
	close(a.ready)
	<-ctx.Done()
}
