// Package redisconn connects to Redis: one server, one behind Sentinels, or a
// cluster, whichever the settings name.
package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/valid"
)

// Config names a Redis. Without addresses there is none.
type Config struct {
	Addrs      []string      `koanf:"addrs" help:"Redis, host:port: the server, the Sentinels (with master_name) or nodes of the cluster (with cluster). Empty means none: events of rides then come from the owners of their partitions alone."`
	MasterName string        `koanf:"master_name" help:"Name of the master that the Sentinels at addrs watch."`
	Cluster    bool          `koanf:"cluster" help:"The servers at addrs are a Redis Cluster."`
	Username   string        `koanf:"username" help:"User of Redis; empty for the default one."`
	Password   config.Secret `koanf:"password" help:"Password of that user."`
	DB         int           `koanf:"db" help:"Number of the database; 0 in a cluster."`
	TLS        bool          `koanf:"tls" help:"Talk TLS to Redis, whose certificate the system's authorities must know."`
	Prefix     string        `koanf:"prefix" help:"What every key and channel begins with."`
	Timeout    time.Duration `koanf:"timeout" help:"How long a command may take."`

	Positions            bool          `koanf:"positions" help:"A process with a matcher keeps the last position of each vehicle in Redis, for other services; see docs/rides.md."`
	PositionsKeep        time.Duration `koanf:"positions_keep" help:"How long a vehicle stays in Redis when nothing is published of it; at least the tracker's repeat_max_interval and repeat_interval together."`
	PositionsMaxVehicles int           `koanf:"positions_max_vehicles" help:"Largest number of vehicles that are kept in Redis; about 300 bytes each in this process."`
}

// DefaultConfig names no Redis.
func DefaultConfig() Config {
	return Config{Prefix: "starling:", Timeout: time.Second, PositionsKeep: 5 * time.Minute, PositionsMaxVehicles: 1_000_000}
}

// On returns whether a Redis is named.
func (c Config) On() bool { return len(c.Addrs) > 0 }

// Validate returns all faults of c joined, each naming its field and rule, or
// nil.
func (c Config) Validate() error {
	var faults valid.Faults
	for _, addr := range c.Addrs {
		_, _, err := net.SplitHostPort(addr)
		faults.Need(err == nil, "addrs", addr, "host:port")
	}
	faults.Need(c.MasterName == "" || c.On(), "master_name", c.MasterName, "set with addrs")
	faults.Need(!c.Cluster || c.On(), "cluster", c.Cluster, "set with addrs")
	faults.Need(!c.Cluster || c.MasterName == "", "cluster", c.Cluster, "set without master_name")
	faults.Need(!c.Cluster || c.DB == 0, "db", c.DB, "0 in a cluster")
	faults.Need(len(c.Addrs) < 2 || c.Cluster || c.MasterName != "", "addrs", c.Addrs, "one address, unless cluster or master_name is set")
	valid.Between(&faults, "db", c.DB, 0, 1<<16)
	faults.Need(!strings.ContainsAny(c.Prefix, "{} \t\n") && len(c.Prefix) <= 100, "prefix", c.Prefix, "at most 100 characters, no braces and no blanks")
	faults.Need(!c.Positions || c.On(), "positions", c.Positions, "set with addrs")
	faults.Need(!c.Positions || !c.Cluster || strings.TrimSuffix(c.Prefix, ":") != "", "prefix", c.Prefix, "not empty in a cluster with positions, whose keys it keeps together")
	valid.Between(&faults, "positions_keep", c.PositionsKeep, 10*time.Second, 30*24*time.Hour)
	valid.Between(&faults, "positions_max_vehicles", c.PositionsMaxVehicles, 1, 100_000_000)
	valid.Between(&faults, "timeout", c.Timeout, 10*time.Millisecond, time.Minute)
	return faults.Err()
}

// clusterReload is how soon a client learns that a replica has taken the place of a
// node that is gone: go-redis asks for the nodes once a minute by default, and a
// pipeline that can't reach a node does not have it ask sooner.
const clusterReload = 2 * time.Second

// ErrOff is returned by Open when no Redis is named.
var ErrOff = errors.New("redis.addrs is empty")

// Open returns a client, which connects when it is first used. The caller closes
// it.
func Open(c Config) (redis.UniversalClient, error) {
	if !c.On() {
		return nil, ErrOff
	}
	o := redis.UniversalOptions{
		Addrs: c.Addrs, MasterName: c.MasterName, DB: c.DB, Username: c.Username, Password: c.Password.Reveal(), SentinelUsername: c.Username,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout, ContextTimeoutEnabled: true,
		MaxRetries: 1, DisableIdentity: true,
	}
	redis.SetLogger(quiet{}) // what fails is returned, counted and logged by the caller
	if c.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	switch {
	case c.MasterName != "":
		return redis.NewFailoverClient(o.Failover()), nil
	case c.Cluster:
		cluster := o.Cluster()
		cluster.ClusterStateReloadInterval = clusterReload
		return redis.NewClusterClient(cluster), nil
	default:
		return redis.NewClient(o.Simple()), nil
	}
}

// quiet drops the library's own lines.
type quiet struct{}

// Printf drops a line.
func (quiet) Printf(context.Context, string, ...any) {}
