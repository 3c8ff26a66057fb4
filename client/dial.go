package client

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// DialOptions are the settings of a connection.
type DialOptions struct {
	// TLS secures the connection; nil means none, for loopback and tests.
	TLS *tls.Config
	// Token proves who the client is; nil sends no token, for servers in
	// development mode. Without TLS it is sent to this machine only.
	Token TokenSource
	// KeepAlive is how long an open stream may be silent before the connection
	// is probed; zero means 30 s. Without the probe, a connection that a
	// mobile network has dropped looks alive for many minutes.
	KeepAlive time.Duration
	// Extra options, applied last.
	Extra []grpc.DialOption
}

// Dial makes a connection for a Reporter and the other services. It does not
// wait for the network: an unreachable server shows in the first call. The
// connection is safe for concurrent use; the caller closes it.
func Dial(target string, opts DialOptions) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if opts.TLS != nil {
		creds = credentials.NewTLS(opts.TLS)
	}
	if opts.KeepAlive == 0 {
		opts.KeepAlive = 30 * time.Second
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: opts.KeepAlive, Timeout: 10 * time.Second}),
		// The Reporter paces its own attempts; the connection below it need
		// only not be slower than that.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if opts.Token != nil {
		if opts.TLS == nil {
			if err := mayCarryTokens(target); err != nil {
				return nil, err
			}
		}
		dial = append(dial, (&tokens{source: opts.Token, now: time.Now}).options()...)
	}
	conn, err := grpc.NewClient(target, append(dial, opts.Extra...)...)
	if err != nil {
		return nil, fmt.Errorf("connection to %q: %w", target, err)
	}
	return conn, nil
}
