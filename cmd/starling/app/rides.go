package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/internal/redisconn"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/matcher/redispositions"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/rides/events"
	"github.com/starling-fleet/starling/schemas/wire"
)

// ridesFleet joins the matcher of a process with its rides: they search its
// index, and it passes them every record of `tracks`.
type ridesFleet struct {
	matcher *matcher.Matcher
	rides   *rides.Rides          // nil in a process without
	redis   redis.UniversalClient // nil without one

	positions *positions // nil unless they are kept in Redis
}

// observe is called once the matcher runs, when the others are set.
func (f *ridesFleet) observe(partition int32, t *wire.Track) {
	if f.rides != nil {
		f.rides.Observe(partition, t)
	}
	if f.positions != nil {
		f.positions.sink.Observe(t)
	}
}

// newFleet sets up the matcher of the process, and the rides role if it has it.
func (a *App) newFleet(log eventlog.Log, address string) (f *ridesFleet, err error) {
	f = &ridesFleet{}
	deps := matcher.Deps{Log: log, Registerer: a.registry, Logger: a.logger.With("component", "matcher")}
	if f.positions, err = a.newPositions(log); err != nil {
		return nil, fmt.Errorf("set up positions in Redis: %w", err)
	}
	if a.has(Rides) || f.positions != nil {
		deps.Observe = f.observe
	}
	if f.matcher, err = matcher.New(a.cfg.Matcher, deps); err != nil {
		return nil, fmt.Errorf("set up the matcher: %w", err)
	}
	if !a.has(Rides) {
		return f, nil
	}
	cfg := a.cfg.Rides
	if cfg.NameKeys, err = a.rideNameKeys(); err != nil {
		return nil, fmt.Errorf("set up rides: %w", err)
	}
	cfg.NameKeysFile = "" // the keys are set by now
	estimator, err := a.cfg.Matcher.ETA.Estimator()
	if err != nil {
		return nil, fmt.Errorf("set up rides: %w", err)
	}
	d := rides.Deps{
		Estimator: estimator, Log: log, Fleet: f.matcher, Registerer: a.registry, Logger: a.logger.With("component", "rides"), Address: address, DialOptions: a.innerDialOptions(),
	}
	if a.cfg.Redis.On() {
		if f.redis, err = redisconn.Open(a.cfg.Redis); err != nil {
			return nil, fmt.Errorf("set up Redis: %w", err)
		}
		d.Store = events.NewRedis(f.redis, a.cfg.Redis.Prefix, log.Epoch(), events.DefaultBounds())
	}
	if f.rides, err = rides.New(cfg, d); err != nil {
		return nil, fmt.Errorf("set up rides: %w", err)
	}
	return f, nil
}

// runRides is the run of the rides role, which closes its Redis.
func (f *ridesFleet) runRides(ctx context.Context) error {
	err := f.rides.Run(ctx)
	if f.redis != nil {
		err = errors.Join(err, f.redis.Close())
	}
	return err
}

// ridesUnits set up the rides role of a process without a matcher, which has one
// of its own that serves nobody else.
func (a *App) ridesUnits(log eventlog.Log, open opener, json *jsonGateway) ([]unit, func() string, error) {
	l, err := open("rides", a.cfg.Server.RidesListen)
	if err != nil {
		return nil, nil, err
	}
	a.addrs[Rides] = l.Addr().String()
	f, err := a.newFleet(log, a.addrs[Rides])
	if err != nil {
		return nil, nil, err
	}
	inMemory, err := json.rides()
	if err != nil {
		return nil, nil, err
	}
	server := a.rpc.New(rpcserver.Role{Name: "rides", Credentials: a.certs.Server("rides"), Register: f.rides.Register, Ready: a.life.whileRunning(f.rides.Ready)})
	return []unit{{"fleet of rides", f.matcher.Run}, {"rides server", a.serving(server, l, inMemory)}, {"rides", f.runRides}}, because(f.rides.Ready, takingUpRides), nil
}

// rideNameKeyFile holds the key for the names of rides beside a local log.
const rideNameKeyFile = "ride-names.key"

// rideNameKeys returns the keys for the names of rides: those that are set, or
// on a local log one that is made once and kept in its directory. A crash while
// it is made leaves no file or a whole one.
func (a *App) rideNameKeys() (config.Secret, error) {
	cfg := a.cfg.Rides
	path := cfg.NameKeysFile
	switch {
	case cfg.NameKeys != "":
		return cfg.NameKeys, nil
	case path != "":
	case !a.cfg.OnKafka():
		path = filepath.Join(a.cfg.Local.Directory, rideNameKeyFile)
	case a.has(Matcher):
		a.logger.Warn("neither rides.name_keys nor rides.name_keys_file is set: names of rides that this process makes are refused after it")
		return config.Secret(hex.EncodeToString(randomKey())), nil
	default:
		return "", errors.New("neither rides.name_keys nor rides.name_keys_file is set: every process of a cluster needs the same keys, such as that of openssl rand -hex 32")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.NameKeysFile == "" {
		b = []byte(hex.EncodeToString(randomKey()))
		err = writeWhole(path, b)
	}
	if err != nil {
		return "", fmt.Errorf("keys for the names of rides: %w", err)
	}
	return config.Secret(b), nil
}

func randomKey() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

// writeWhole writes a file that only its owner may read, whole or not at all: a
// power cut leaves at most path.new, which the next call replaces.
func writeWhole(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// positions are kept in Redis over a connection of their own, so that events of
// rides do not queue behind them.
type positions struct {
	sink   *redispositions.Sink
	client redis.UniversalClient
}

// newPositions returns nil unless the process has a matcher and keeps positions.
func (a *App) newPositions(log eventlog.Log) (*positions, error) {
	cfg := a.cfg.Redis
	if !cfg.Positions || !a.has(Matcher) {
		return nil, nil
	}
	client, err := redisconn.Open(cfg)
	if err != nil {
		return nil, err
	}
	sink, err := redispositions.New(
		redispositions.Config{Prefix: cfg.Prefix, OneSlot: cfg.Cluster, Keep: cfg.PositionsKeep, MaxVehicles: cfg.PositionsMaxVehicles},
		redispositions.Deps{Client: client, Epoch: log.Epoch(), Registerer: a.registry, Logger: a.logger.With("component", "positions in Redis")},
	)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &positions{sink: sink, client: client}, nil
}

// run writes positions and closes the connection.
func (p *positions) run(ctx context.Context) error {
	return errors.Join(p.sink.Run(ctx), p.client.Close())
}
