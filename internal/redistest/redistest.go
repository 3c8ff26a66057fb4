// Package redistest runs a real Redis for tests on free loopback ports: one server
// that keeps nothing on disk, one behind Sentinels, or a cluster. It dies with the process that started it,
// whatever ends that (Linux: PR_SET_PDEATHSIG).
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
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
	exited chan struct{} // closed when the running process has ended
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.run(cmd); err != nil {
		s.tb.Fatalf("redistest: %v", err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-s.exited:
			s.tb.Fatalf("redistest: redis-server ended before it served: %s", s.output.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("redistest: redis-server does not serve: %v", err)
		}
	}
}

// run starts the process. The parent-death signal is tied to the thread that
// forks, so a goroutine that is locked to its thread starts it and stays until it
// has ended.
func (s *Server) run(cmd *exec.Cmd) error {
	exited, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended is in its output
		close(exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	s.cmd, s.exited = cmd, exited
	return nil
}
