// Package redistest runs a real Redis for tests on free loopback ports: one server
// that keeps nothing on disk, one behind Sentinels, or a cluster. It dies with the process that started it,
// whatever ends that (Linux: PR_SET_PDEATHSIG).
package redistest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/testcache"
)

// Server is a Redis that a test may kill and start again at the same address.
type Server struct {
	tb   testing.TB
	addr string
	dir  string
	args []string
	// command, if not nil, is the whole command line.
	command []string

	cmd    *exec.Cmd
	exited <-chan struct{} // closed when the running process has ended
	output bytes.Buffer
}

// Need ends the test unless Redis can run here: it skips on a machine without
// redis-server, and fails there in CI, where these tests must run.
func Need(tb testing.TB) {
	tb.Helper()
	_, err := exec.LookPath("redis-server")
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		tb.Fatal("redistest: redis-server is not installed; on Debian: apt-get install redis-server")
	default:
		tb.Skip("redistest: redis-server is not installed; on Debian: apt-get install redis-server")
	}
}

// Start runs a Redis until the test ends; args are added to its command line.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	Need(tb)
	addrs, err := freeport.Addrs(1)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, addr: addrs[0], dir: tb.TempDir(), args: args}
	tb.Cleanup(s.Kill)
	s.Restart()
	return s
}

// Addr is where the server listens, host and port.
func (s *Server) Addr() string { return s.addr }

// Kill ends the server with SIGKILL. It keeps nothing.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Restart starts the server after Kill, empty and at the same address, and
// returns when it takes connections.
func (s *Server) Restart() {
	s.tb.Helper()
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	args := append([]string{"--bind", host, "--port", port, "--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"}, s.args...)
	if s.command != nil {
		args = s.command
	}
	cmd := exec.Command("redis-server", args...)
	s.output.Reset()
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	exited, err := testcache.Start(cmd)
	if err != nil {
		s.tb.Fatalf("redistest: start redis-server: %v", err)
	}
	s.cmd, s.exited = cmd, exited
	if err := testcache.AwaitTCP(s.addr, exited, 20*time.Second); err != nil {
		s.tb.Fatalf("redistest: redis-server: %v: %s", err, s.output.String())
	}
}
