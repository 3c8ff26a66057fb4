package rpcserver

import (
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config bounds what callers can make a gRPC server hold, for every role.
type Config struct {
	HandshakeTimeout   time.Duration `koanf:"handshake_timeout" help:"How long a new connection may take until HTTP/2 is agreed upon."`
	MaxHeaderBytes     int           `koanf:"max_header_bytes" help:"Largest headers of a call, in bytes."`
	MaxConnStreams     int           `koanf:"max_conn_streams" help:"Calls that may be open at a time on one connection of a dispatcher or rider; further ones wait in the client. ingest.limits.max_conn_streams is the same for driver apps."`
	PingInterval       time.Duration `koanf:"ping_interval" help:"Silence of a dispatcher's or rider's connection after which the server asks whether its client is still there. ingest.limits.ping_interval is the same for driver apps."`
	ReadTimeout        time.Duration `koanf:"read_timeout" help:"How long a call's one request may take to arrive whole; streams of reports are ingest's to bound."`
	ReadingBytes       int64         `koanf:"reading_bytes" help:"Budget of a server for requests that are being read, each charged with its stream's window (64 KiB at ingest, 256 KiB at a matcher). When it is used up, requests of the connection that holds most give way to new ones."`
	UnreadBytes        int64         `koanf:"unread_bytes" help:"Budget of a server for answers that clients have not read. When half of it is used up, large calls of callers (without tokens: connections) that leave an eighth unread are refused, and who leaves most unread is disconnected; when all is, the clients with the oldest unread answers and those with most go, and if that does not suffice large calls are refused."`
	ConnUnreadBytes    int64         `koanf:"conn_unread_bytes" help:"Bytes of answers that one connection may leave unread before its large calls are refused and its watches wait, as they do when their caller leaves half of unread_bytes on all of its connections."`
	SendTimeout        time.Duration `koanf:"send_timeout" help:"How long a client may leave an answer unread before it is disconnected."`
	MaxConnLarge       int           `koanf:"max_conn_large" help:"Calls for large answers (searches of an area, lists, counts) that one connection may have waiting or at work; further ones are refused."`
	CallCPUs           float64       `koanf:"call_cpus" help:"CPUs that calls of an estimated millisecond or more may keep busy, all callers together, with a burst of four seconds; further ones are refused with the time to wait. 0 means half of the machine's."`
	PrincipalShare     float64       `koanf:"principal_share" help:"Part of call_cpus that the calls of one caller may use: of whom the token names or, in development mode, of one address."`
	CallerCallsPerSec  float64       `koanf:"caller_calls_per_s" help:"Calls that one caller, as its token names it, may begin per second on average; further ones are refused with the time to wait. 0 means no limit. In development mode callers have no names."`
	RiderCallsPerSec   float64       `koanf:"rider_calls_per_s" help:"The same for a caller with a rider's scope only, so that many searches do not add up to a map of the fleet."`
	AddressCallsPerSec float64       `koanf:"address_calls_per_s" help:"The same for all callers from one network address together; those of services of ours do not count. 0 means no limit: mobile networks put many thousand phones behind one address."`
	CallBurst          time.Duration `koanf:"call_burst" help:"How many calls may come at once of what these rates allow: as many as in this time."`
	MaxSideStreams     int           `koanf:"max_side_streams" help:"Streams of health and reflection that may be open at a time."`
	Reflection         bool          `koanf:"reflection" help:"Offer gRPC reflection, which tools such as grpcurl use."`
	MaxConnIdle        time.Duration `koanf:"max_conn_idle" help:"How long a connection may be without a call before it is closed."`
	MaxConnAge         time.Duration `koanf:"max_conn_age" help:"Age at which a client is asked to connect anew, so that load spreads over servers that were added; up to a tenth more or less, at random. 0 means never."`
	ConnAgeGrace       time.Duration `koanf:"conn_age_grace" help:"How long calls on a connection of that age may go on before they are cut off."`
	MinPing            time.Duration `koanf:"min_ping" help:"Least time between two pings of a client; one that pings more often is disconnected."`
}

// DefaultConfig suits dispatchers, riders and phones alike.
func DefaultConfig() Config {
	return Config{
		HandshakeTimeout:  20 * time.Second,
		MaxHeaderBytes:    16 << 10,
		MaxConnStreams:    8192, // a fan-out has all of its calls on one connection
		ReadTimeout:       10 * time.Second,
		ReadingBytes:      64 << 20,
		UnreadBytes:       20 << 20,
		ConnUnreadBytes:   8 << 20,
		SendTimeout:       30 * time.Second,
		MaxConnLarge:      256,
		PrincipalShare:    0.5,
		CallerCallsPerSec: 5000,
		RiderCallsPerSec:  10,
		CallBurst:         10 * time.Second,
		MaxSideStreams:    200,
		Reflection:        true,
		MaxConnIdle:       15 * time.Minute,
		MaxConnAge:        2 * time.Hour,
		ConnAgeGrace:      time.Minute,
		PingInterval:      time.Minute,
		MinPing:           10 * time.Second,
	}
}

// Validate returns all faults, each naming its field and rule.
func (c Config) Validate() error {
	var faults valid.Faults
	valid.AtLeast(&faults, "handshake_timeout", c.HandshakeTimeout, time.Second)
	valid.Between(&faults, "max_header_bytes", c.MaxHeaderBytes, 1<<10, 1<<20)
	valid.AtLeast(&faults, "max_conn_streams", c.MaxConnStreams, 1)
	valid.AtLeast(&faults, "ping_interval", c.PingInterval, time.Second)
	valid.AtLeast(&faults, "read_timeout", c.ReadTimeout, 100*time.Millisecond)
	valid.AtLeast(&faults, "reading_bytes", c.ReadingBytes, 1<<20)
	valid.AtLeast(&faults, "unread_bytes", c.UnreadBytes, 1<<20)
	valid.AtLeast(&faults, "conn_unread_bytes", c.ConnUnreadBytes, 1<<20)
	valid.AtLeast(&faults, "send_timeout", c.SendTimeout, 100*time.Millisecond)
	valid.AtLeast(&faults, "max_conn_large", c.MaxConnLarge, 1)
	valid.AtLeast(&faults, "call_cpus", c.CallCPUs, 0)
	faults.Need(c.PrincipalShare > 0 && c.PrincipalShare <= 1, "principal_share", c.PrincipalShare, "above 0 and at most 1")
	for field, rate := range map[string]float64{"caller_calls_per_s": c.CallerCallsPerSec, "rider_calls_per_s": c.RiderCallsPerSec, "address_calls_per_s": c.AddressCallsPerSec} {
		faults.Need(rate == 0 || rate >= 0.001 && rate <= 1e9, field, rate, "0 or between 0.001 and 1e9")
	}
	valid.Between(&faults, "call_burst", c.CallBurst, time.Second, time.Hour)
	valid.AtLeast(&faults, "max_side_streams", c.MaxSideStreams, 1)
	valid.AtLeast(&faults, "max_conn_idle", c.MaxConnIdle, time.Second)
	faults.Need(c.MaxConnAge == 0 || c.MaxConnAge >= time.Second, "max_conn_age", c.MaxConnAge, "0 or at least 1s")
	valid.AtLeast(&faults, "conn_age_grace", c.ConnAgeGrace, time.Second)
	valid.AtLeast(&faults, "min_ping", c.MinPing, time.Second)
	return faults.Err()
}
