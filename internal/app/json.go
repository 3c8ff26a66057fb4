package app

import (
	"context"
	"net"

	"github.com/starling-fleet/starling/internal/jsondoor"
)

// opener opens a door of the process.
type opener func(name, addr string) (net.Listener, error)

// jsonDoor is the JSON door of a process; nil when there is none.
type jsonDoor struct{ *jsondoor.Door }

// jsonUnits opens the JSON door if the process has a role that it can serve.
func (a *App) jsonUnits(open opener) (*jsonDoor, []unit, error) {
	if a.cfg.Server.JSONListen == "" || !a.has(Ingest) && !a.has(Matcher) && !a.has(Fanout) {
		return nil, nil, nil
	}
	door, err := jsondoor.New(a.cfg.JSON, a.registry, a.logger.With("room", "jsondoor"))
	if err != nil {
		return nil, nil, err
	}
	l, err := open("JSON", a.cfg.Server.JSONListen)
	if err != nil {
		return nil, nil, err
	}
	a.json = l.Addr().String()
	return &jsonDoor{door}, []unit{{"JSON door", func(ctx context.Context) error {
		return door.Serve(ctx, l, a.cfg.Server.DrainTimeout)
	}}}, nil
}

// ingest returns what the ingest server listens on besides its own door.
func (d *jsonDoor) ingest() ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddIngest()
	return []net.Listener{l}, err
}

// fleet returns what the fleet server listens on besides its own door.
func (d *jsonDoor) fleet() ([]net.Listener, error) {
	if d == nil {
		return nil, nil
	}
	l, err := d.AddFleet()
	return []net.Listener{l}, err
}
