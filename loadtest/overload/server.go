package overload

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/loadtest/process"
)

// stopPatience is how long the server may take to stop.
const stopPatience = 30 * time.Second

// server is the serving process.
type server struct{ *process.Up }

// startServer starts one and waits until it serves.
func startServer(ctx context.Context, o *Options) (*server, error) {
	up, err := process.StartUp(ctx, o.Starling, o.WorkDir, "--ingest-limits-server-bytes", strconv.FormatInt(o.ServerBytes, 10))
	if err != nil {
		return nil, err
	}
	return &server{up}, nil
}

// dialer opens connections and closes them all.
type dialer struct {
	conns []*grpc.ClientConn
}

func (d *dialer) dial(addr string) (*grpc.ClientConn, error) {
	conn, err := client.Dial(addr, client.DialOptions{})
	if err == nil {
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

// dialN opens n connections.
func (d *dialer) dialN(addr string, n int) ([]grpc.ClientConnInterface, error) {
	var conns []grpc.ClientConnInterface
	for range n {
		conn, err := d.dial(addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func (d *dialer) close() {
	for _, conn := range d.conns {
		_ = conn.Close()
	}
}
