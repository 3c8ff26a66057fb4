package rpcserver

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds what callers can make a gRPC server hold, for every role.
type Config struct {
	HandshakeTimeout time.Duration `koanf:"handshake_timeout" help:"How long a new connection may take until HTTP/2 is agreed upon."`
	MaxHeaderBytes   int           `koanf:"max_header_bytes" help:"Largest headers of a call, in bytes."`
	MaxConnStreams   int           `koanf:"max_conn_streams" help:"Calls that may be open at a time on one connection of a dispatcher or rider; further ones wait in the client. ingest.limits.max_conn_streams is the same for driver apps."`
	PingInterval     time.Duration `koanf:"ping_interval" help:"Silence of a dispatcher's or rider's connection after which the server asks whether its client is still there. ingest.limits.ping_interval is the same for driver apps."`
	MinPing          time.Duration `koanf:"min_ping" help:"Least time between two pings of a client; one that pings more often is disconnected."`
}

// DefaultConfig suits dispatchers, riders and phones alike.
func DefaultConfig() Config {
	return Config{
		HandshakeTimeout: 20 * time.Second,
		MaxHeaderBytes:   16 << 10,
		MaxConnStreams:   1000,
		PingInterval:     time.Minute,
		MinPing:          10 * time.Second,
	}
}

// Validate returns all faults, each naming its field and rule.
func (c Config) Validate() error {
	var faults []error
	need := func(ok bool, field string, value any, rule string) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s is %v: must be %s", field, value, rule))
		}
	}
	need(c.HandshakeTimeout >= time.Second, "handshake_timeout", c.HandshakeTimeout, "at least 1s")
	need(c.MaxHeaderBytes >= 1<<10 && c.MaxHeaderBytes <= 1<<20, "max_header_bytes", c.MaxHeaderBytes, "between 1024 and 1048576")
	need(c.MaxConnStreams >= 1, "max_conn_streams", c.MaxConnStreams, "at least 1")
	need(c.PingInterval >= time.Second, "ping_interval", c.PingInterval, "at least 1s")
	need(c.MinPing >= time.Second, "min_ping", c.MinPing, "at least 1s")
	return errors.Join(faults...)
}
