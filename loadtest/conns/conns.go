// Package conns opens the gRPC connections of a measurement and closes them
// together.
package conns

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/starling-fleet/starling/client"
)

// Set is a set of connections. The zero value is empty. One goroutine at a time
// may use it.
type Set struct {
	conns []*grpc.ClientConn
}

// Dial opens a connection to host:port.
func (s *Set) Dial(addr string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := client.Dial(addr, client.DialOptions{Extra: extra})
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// DialN opens n connections to host:port.
func (s *Set) DialN(n int, addr string, extra ...grpc.DialOption) ([]grpc.ClientConnInterface, error) {
	all := make([]grpc.ClientConnInterface, n)
	for i := range all {
		conn, err := s.Dial(addr, extra...)
		if err != nil {
			return nil, err
		}
		all[i] = conn
	}
	return all, nil
}

// Close closes all connections.
func (s *Set) Close() {
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

// Reconnect makes a connection come back soon after its server was killed: the
// wait between two attempts begins with least and grows by factor up to most.
func Reconnect(least, most time.Duration, factor float64) grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: least, Multiplier: factor, Jitter: 0.2, MaxDelay: most},
		MinConnectTimeout: 5 * time.Second,
	})
}
