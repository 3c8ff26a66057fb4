package app

import (
	"fmt"
	"net"
	"time"

	"github.com/starling-fleet/starling/fanout"
	"github.com/starling-fleet/starling/history"
	"github.com/starling-fleet/starling/ingest"
	"github.com/starling-fleet/starling/internal/auth"
	"github.com/starling-fleet/starling/internal/certs"
	"github.com/starling-fleet/starling/internal/gateway"
	"github.com/starling-fleet/starling/internal/kafkalog"
	"github.com/starling-fleet/starling/internal/locallog"
	"github.com/starling-fleet/starling/internal/redisconn"
	"github.com/starling-fleet/starling/internal/rpcserver"
	"github.com/starling-fleet/starling/internal/valid"
	"github.com/starling-fleet/starling/matcher"
	"github.com/starling-fleet/starling/rides"
	"github.com/starling-fleet/starling/schemas/topics"
	"github.com/starling-fleet/starling/tracker"
)

// Config is everything that can be set. Every package owns its section.
type Config struct {
	// Dev is development mode.
	Dev bool `koanf:"dev" help:"Development mode: everybody who reaches this machine's loopback may do everything, or, with auth.dev_secret_file or other keys, tokens are checked. Servers listen on loopback only."`
	// Partitions is set on whichever log is used.
	Partitions int              `koanf:"partitions" help:"Partitions of every topic. Fixed once the topics exist: a process that is set otherwise refuses to start."`
	Local      locallog.Config  `koanf:"local"`
	Kafka      kafkalog.Config  `koanf:"kafka"`
	Ingest     ingest.Config    `koanf:"ingest"`
	Tracker    tracker.Config   `koanf:"tracker"`
	Matcher    matcher.Config   `koanf:"matcher"`
	Fanout     fanout.Config    `koanf:"fanout"`
	Rides      rides.Config     `koanf:"rides"`
	History    history.Config   `koanf:"history"`
	Redis      redisconn.Config `koanf:"redis"`
	Server     ServerConfig     `koanf:"server"`
	JSON       gateway.Config   `koanf:"json"`
	Auth       auth.Config      `koanf:"auth"`
	TLS        certs.Config     `koanf:"tls"`
	Log        LogConfig        `koanf:"log"`
}

// ServerConfig sets the servers of a process.
type ServerConfig struct {
	IngestListen  string           `koanf:"ingest_listen" help:"Address of the server for driver apps (gRPC)."`
	MatcherListen string           `koanf:"matcher_listen" help:"Address of the server for dispatchers and riders (gRPC), a matcher's or a fan-out's."`
	RidesListen   string           `koanf:"rides_listen" help:"Address of the server for rides (gRPC)."`
	HistoryListen string           `koanf:"history_listen" help:"Address of the server for history (gRPC)."`
	JSONListen    string           `koanf:"json_listen" help:"Address of the same services as JSON (HTTP); empty turns it off."`
	AdminListen   string           `koanf:"admin_listen" help:"Address of health, profiles and, without metrics_listen, metrics (HTTP); empty turns it off."`
	MetricsListen string           `koanf:"metrics_listen" help:"Address of metrics alone (HTTP), which the admin server then does not have; empty leaves them there."`
	AdminHosts    []string         `koanf:"admin_hosts" help:"Host names under which the admin server answers besides its addresses and localhost. Others are refused, so that no web page can read it by a name of its own."`
	GRPC          rpcserver.Config `koanf:"grpc" help:"-"`
	DrainTimeout  time.Duration    `koanf:"drain_timeout" help:"How long a stop may take: half of it is for open calls, which are cut off then. Also how long a process whose log has failed waits for its parts."`
	// MaxConnections bounds the connections of all servers but the admin one.
	MaxConnections int `koanf:"max_connections" help:"Connections that all servers but the admin one accept together; 0 means as many as the process's limit of open files (ulimit -n) leaves beside the log's store."`
}

// LogConfig sets what the process logs.
type LogConfig struct {
	Level  string `koanf:"level" help:"Least level that is logged: debug, info, warn or error."`
	Format string `koanf:"format" help:"Form of the log: text or json."`
	File   string `koanf:"file" help:"File that is logged to, in place of standard error; SIGHUP opens it anew after a rotation."`
}

// DefaultConfig is a laptop's: everything on loopback, on the local log.
func DefaultConfig() Config {
	return Config{
		Partitions: topics.DefaultPartitions,
		Local:      locallog.DefaultConfig(),
		Kafka:      kafkalog.DefaultConfig(),
		Ingest:     ingest.DefaultConfig(),
		Tracker:    tracker.DefaultConfig(),
		Matcher:    matcher.DefaultConfig(),
		Rides:      rides.DefaultConfig(),
		History:    history.DefaultConfig(),
		Redis:      redisconn.DefaultConfig(),
		Fanout:     fanout.DefaultConfig(),
		Server: ServerConfig{
			IngestListen:  "127.0.0.1:7600",
			MatcherListen: "127.0.0.1:7601",
			RidesListen:   "127.0.0.1:7602",
			HistoryListen: "127.0.0.1:7606",
			JSONListen:    "127.0.0.1:7603",
			AdminListen:   "127.0.0.1:7602",
			DrainTimeout:  10 * time.Second,
			GRPC:          rpcserver.DefaultConfig(),
		},
		JSON: gateway.DefaultConfig(),
		Auth: auth.DefaultConfig(),
		TLS:  certs.DefaultConfig(),
		Log:  LogConfig{Level: "info", Format: "text"},
	}
}

// OnKafka reports whether the log is Kafka's; otherwise it is the local one.
func (c *Config) OnKafka() bool { return len(c.Kafka.Brokers) > 0 }

// Validate names every fault of the whole configuration, each with its section.
func (c *Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "partitions", c.Partitions, 1, 10_000)
	if c.OnKafka() {
		kafka := c.KafkaLog()
		faults.In("kafka", kafka.Validate())
	} else {
		faults.In("local", c.LocalLog().Validate())
	}
	faults.In("ingest", c.Ingest.Validate())
	faults.In("tracker", c.Tracker.Validate())
	faults.In("matcher", c.Matcher.Validate())
	c.compare(&faults)
	faults.In("fanout", c.Fanout.Validate())
	faults.In("rides", c.Rides.Validate())
	faults.In("history", c.History.Validate())
	faults.In("redis", c.Redis.Validate())
	faults.In("server", c.Server.validate(c.Dev, c.TLS.On() || c.TLS.BehindProxy))
	faults.In("tls", c.TLS.Validate())
	faults.In("auth", c.Auth.Validate(c.Dev))
	faults.In("json", c.JSON.Validate())
	_, err := c.Log.level()
	faults.In("log", err)
	faults.Need(c.Log.Format == "text" || c.Log.Format == "json", "log: format", c.Log.Format, "text or json")
	return faults.Err()
}

// compare notes settings of one role that disagree with another's.
func (c *Config) compare(faults *valid.Faults) {
	w, least := c.Matcher.RebuildWindow, c.Tracker.RepeatMaxInterval+c.Tracker.RepeatInterval
	faults.Need(w == 0 || w >= least, "matcher: rebuild_window", w,
		fmt.Sprintf("0 or at least tracker.repeat_max_interval and tracker.repeat_interval, together %s, or a matcher that starts misses silent vehicles", least))
	keep := c.Redis.PositionsKeep
	faults.Need(!c.Redis.Positions || keep >= least, "redis: positions_keep", keep,
		fmt.Sprintf("at least tracker.repeat_max_interval and tracker.repeat_interval, together %s, or vehicles expire that are only silent", least))
	m, t := c.Matcher.DispatchMaxAge, c.Tracker.DispatchMaxAge
	faults.Need(m == t, "matcher: dispatch_max_age", m,
		fmt.Sprintf("what tracker.dispatch_max_age is, which is %s: the two would disagree about who can be offered a ride", t))
	in, step := c.Ingest.Validation.MaxAhead, c.Tracker.MaxAhead
	faults.Need(in == step, "ingest: validation.max_ahead", in,
		fmt.Sprintf("what tracker.max_ahead is, which is %s: what ingest takes, the tracker must not set aside", step))
}

func (c *ServerConfig) validate(dev, secured bool) error {
	var faults valid.Faults
	for name, addr := range map[string]string{"ingest_listen": c.IngestListen, "matcher_listen": c.MatcherListen, "rides_listen": c.RidesListen, "history_listen": c.HistoryListen} {
		faults.Add(checkListen(name, addr, dev, secured))
	}
	for name, addr := range map[string]string{"json_listen": c.JSONListen, "admin_listen": c.AdminListen, "metrics_listen": c.MetricsListen} {
		if addr != "" {
			faults.Add(checkListen(name, addr, dev, secured))
		}
	}
	valid.AtLeast(&faults, "max_connections", c.MaxConnections, 0)
	faults.In("grpc", c.GRPC.Validate())
	valid.Positive(&faults, "drain_timeout", c.DrainTimeout)
	return faults.Err()
}

// checkListen keeps the servers of development mode, and those to which tokens
// would be sent in the clear, on loopback.
func checkListen(name, addr string, dev, secured bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s is %q: must be host:port: %w", name, addr, err)
	}
	if dev && !auth.Loopback(host) {
		return fmt.Errorf("%s is %q: with --dev it must be on loopback; for another address set auth.keys_file or auth.jwks_url instead (docs/identity.md)", name, addr)
	}
	if !secured && !auth.Loopback(host) {
		return fmt.Errorf("%s is %q: on an address other than loopback tokens must not be sent in the clear: set tls.cert_file and tls.key_file, or tls.behind_proxy if a proxy in front has TLS", name, addr)
	}
	return nil
}

// LocalLog returns the local log's configuration with what both logs share.
func (c *Config) LocalLog() locallog.Config {
	local := c.Local
	local.Partitions = c.Partitions
	return local
}

// KafkaLog returns Kafka's configuration with what both logs share.
func (c *Config) KafkaLog() kafkalog.Config {
	kafka := c.Kafka
	kafka.Partitions = c.Partitions
	return kafka
}
