package overload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/loadtest/process"
)

// server is the serving process.
type server struct {
	*process.Process
	ingest, matcher string
	dir             string
}

// startServer starts `starling up` on a new local log and waits until it is
// ready.
func startServer(ctx context.Context, o *Options) (*server, error) {
	s := &server{}
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return nil, err
	}
	s.ingest, s.matcher = addrs[0], addrs[1]
	admin := addrs[2]
	if s.dir, err = os.MkdirTemp(o.WorkDir, "starling-overload-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	command := append(append([]string{}, o.Starling...), "up", "--log-level", "warn",
		"--server-ingest-listen", s.ingest, "--server-matcher-listen", s.matcher, "--server-json-listen", "", "--server-admin-listen", admin,
		"--local-directory", filepath.Join(s.dir, "log"),
		"--ingest-limits-server-bytes", strconv.FormatInt(o.ServerBytes, 10))
	s.Process = process.New(process.Spec{Name: "the server", Command: command, Admin: admin})
	if err := s.Start(); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := s.WaitReady(ready); err != nil {
		_ = s.stop()
		return nil, err
	}
	return s, nil
}

// stop ends the process and removes its log. Its error says that it ended
// otherwise than cleanly.
func (s *server) stop() error {
	err := s.StopWithin(30 * time.Second)
	_ = os.RemoveAll(s.dir)
	return err
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
