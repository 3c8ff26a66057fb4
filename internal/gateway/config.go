package gateway

import (
	"net/url"
	"time"

	"github.com/starling-fleet/starling/internal/valid"
)

// Config sets the gateway's bounds.
type Config struct {
	AllowOrigins    []string      `koanf:"allow_origins" help:"Web pages that may call the gateway from a browser (CORS), as scheme://host or scheme://host:port; * means all. Empty turns CORS off."`
	MaxBodyBytes    int           `koanf:"max_body_bytes" help:"Largest body of a request, in bytes."`
	MaxOpenRequests int           `koanf:"max_open_requests" help:"Requests and watches that may be open at a time; further ones are answered 429."`
	BodyBytes       int64         `koanf:"body_bytes" help:"Budget for bodies that are being read, in bytes. When it is used up, those of the client that holds most give way to new ones."`
	AnswerBytes     int64         `koanf:"answer_bytes" help:"Budget for lists, searches of an area and counts that are being answered, each charged 24 MiB, and for other answers and messages of watches of 16 KiB and more that are being read, each charged eight times its size as protobuf. When it is used up, those of the client that holds most, or the oldest if it is older than a second, give way to new ones."`
	ReadTimeout     time.Duration `koanf:"read_timeout" help:"How long a client may take to send a request."`
	CallTimeout     time.Duration `koanf:"call_timeout" help:"How long a call may take, unless the client asks for less with Grpc-Timeout. Watches have no end."`
	WriteTimeout    time.Duration `koanf:"write_timeout" help:"How long a client may take to read a piece of the answer, or for a message of a watch."`
	IdleTimeout     time.Duration `koanf:"idle_timeout" help:"How long a connection may be without a request."`
}

// DefaultConfig allows the largest search of an area and for the largest
// report.
func DefaultConfig() Config {
	return Config{
		MaxBodyBytes:    1 << 20,
		MaxOpenRequests: 20_000,
		BodyBytes:       16 << 20,
		AnswerBytes:     72 << 20,
		ReadTimeout:     20 * time.Second,
		CallTimeout:     30 * time.Second,
		WriteTimeout:    30 * time.Second,
		IdleTimeout:     2 * time.Minute,
	}
}

// Validate names every fault.
func (c *Config) Validate() error {
	var faults valid.Faults
	valid.Between(&faults, "max_body_bytes", c.MaxBodyBytes, 1<<10, 64<<20)
	valid.AtLeast(&faults, "max_open_requests", c.MaxOpenRequests, 1)
	faults.Need(c.BodyBytes >= int64(2*c.MaxBodyBytes), "body_bytes", c.BodyBytes, "at least twice max_body_bytes")
	faults.Need(c.AnswerBytes >= largeAnswerBytes, "answer_bytes", c.AnswerBytes, "at least 25165824, which is one answer")
	valid.Positive(&faults, "read_timeout", c.ReadTimeout)
	valid.Positive(&faults, "call_timeout", c.CallTimeout)
	valid.Positive(&faults, "write_timeout", c.WriteTimeout)
	valid.Positive(&faults, "idle_timeout", c.IdleTimeout)
	for _, origin := range c.AllowOrigins {
		faults.Need(isOrigin(origin), "allow_origins", origin, "* or scheme://host[:port], without a path")
	}
	return faults.Err()
}

func isOrigin(s string) bool {
	if s == "*" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && s == u.Scheme+"://"+u.Host
}
