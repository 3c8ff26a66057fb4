package app

import (
	"context"
	"net"

	"github.com/starling-fleet/starling/history/query"
	"github.com/starling-fleet/starling/internal/gateway"
	"github.com/starling-fleet/starling/matcher"
)

// opener opens a listener of the process.
type opener func(name, addr string) (net.Listener, error)

// jsonGateway is the JSON gateway of a process; nil when there is none.
type jsonGateway struct{ *gateway.Gateway }

// jsonUnits opens the JSON gateway if the process has a role that it can serve.
func (a *App) jsonUnits(open opener) (*jsonGateway, []unit, error) {
	if a.cfg.Server.JSONListen == "" || !a.has(Ingest) && !a.has(Matcher) && !a.has(Fanout) && !a.has(Rides) && !a.has(History) {
		return nil, nil, nil
	}
	json, err := gateway.New(a.cfg.JSON, gateway.Deps{Guard: a.guard, TLS: a.certs.Web("json"), Loopback: a.cfg.Dev, Registerer: a.registry, Logger: a.logger.With("component", "gateway")})
	if err != nil {
		return nil, nil, err
	}
	l, err := open("JSON", a.cfg.Server.JSONListen)
	if err != nil {
		return nil, nil, err
	}
	a.json = l.Addr().String()
	return &jsonGateway{json}, []unit{{"JSON gateway", func(ctx context.Context) error {
		return json.Serve(ctx, a.http, l, a.cfg.Server.DrainTimeout/4)
	}}}, nil
}

// ingest returns what the ingest server listens on besides its own address.
func (d *jsonGateway) ingest(maxRequestBytes int) ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddIngest(maxRequestBytes)
	return []net.Listener{l}, err
}

// fleet returns what the fleet server listens on besides its own address.
func (d *jsonGateway) fleet() ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddFleet(matcher.MaxRequestBytes)
	return []net.Listener{l}, err
}

// rides returns what the rides server listens on besides its own address.
func (d *jsonGateway) rides() ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddRides(maxRideRequestBytes)
	return []net.Listener{l}, err
}

// history returns what the history server listens on besides its own address.
func (d *jsonGateway) history() ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddHistory(query.MaxRequestBytes)
	return []net.Listener{l}, err
}

// maxRideRequestBytes bounds a call about a ride.
const maxRideRequestBytes = 16 << 10
