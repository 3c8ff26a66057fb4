package clickhousetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/testcache"
)

// User and Password are those of the user for tests.
const (
	User     = "starling"
	Password = "not-for-production"
)

// config names the file of users and holds the engine to a size that a test
// machine has.
const config = `<clickhouse>
<user_directories><users_xml><path>%[1]s</path></users_xml></user_directories>
<users_config>%[1]s</users_config>
<max_server_memory_usage>4000000000</max_server_memory_usage>
<mark_cache_size>268435456</mark_cache_size>
</clickhouse>
`

// users are the user and default, whom the engine's own session needs without a
// password.
const users = `<clickhouse>
<profiles><default></default></profiles><quotas><default></default></quotas>
<users>
<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
<%[1]s><password>%[2]s</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></%[1]s>
</users>
</clickhouse>
`

// Server is a ClickHouse that may be killed and started again at the same addresses
// with what it has kept.
type Server struct {
	engine, dir  string
	native, http string

	cmd    *exec.Cmd
	input  io.Closer       // the server ends when it is closed
	exited <-chan struct{} // closed when the running process has ended
	output bytes.Buffer
}

// Start runs a server until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	Need(tb)
	engine, err := Install(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Launch(engine, tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// Launch runs the engine that Install has returned, with its data in a directory,
// until Kill or the end of this process.
func Launch(engine, dir string) (*Server, error) {
	addrs, err := freeport.Addrs(2)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: engine, dir: dir, native: addrs[0], http: addrs[1]}
	usersFile := filepath.Join(dir, "users.xml")
	err = errors.Join(
		os.WriteFile(usersFile, fmt.Appendf(nil, users, User, Password), 0o600),
		os.WriteFile(filepath.Join(dir, "config.xml"), fmt.Appendf(nil, config, usersFile), 0o600))
	if err != nil {
		return nil, fmt.Errorf("clickhousetest: %w", err)
	}
	return s, s.Restart()
}

// Addr is where the server speaks the native protocol, host and port.
func (s *Server) Addr() string { return s.native }

// HTTPAddr is where it speaks HTTP, host and port.
func (s *Server) HTTPAddr() string { return s.http }

// DataDir is where its data are.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// Kill ends the server with SIGKILL. What it has on disk stays.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	_ = s.input.Close()
	s.cmd = nil
}

// Restart starts the server after Kill and returns when it answers.
func (s *Server) Restart() error {
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	cmd := exec.Command(filepath.Join(s.engine, "engine"), filepath.Join(s.engine, "libchdb.so"),
		"--path", s.DataDir(), "--config-file", filepath.Join(s.dir, "config.xml"),
		"--listen_host", "127.0.0.1", "--tcp_port", port(s.native), "--http_port", port(s.http),
		"--structure", "line String", "--input-format", "LineAsString",
		"--query", "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table FORMAT Null")
	input, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("clickhousetest: %w", err)
	}
	s.output.Reset()
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	exited, err := testcache.Start(cmd)
	if err != nil {
		return fmt.Errorf("clickhousetest: start the engine: %w", err)
	}
	s.cmd, s.input, s.exited = cmd, input, exited
	return s.await()
}

// await returns when the server answers.
func (s *Server) await() error {
	client := http.Client{Timeout: time.Second}
	deadline := time.Now().Add(time.Minute)
	for {
		answer, err := client.Get("http://" + s.http + "/ping")
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.exited:
			return fmt.Errorf("clickhousetest: the engine ended before it served: %s", s.output.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("clickhousetest: the engine does not serve: %w", err)
		}
	}
}

// CPU is the processor time that the running server has used, as the kernel counts
// it, in steps of 10 ms.
func (s *Server) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("clickhousetest: %w", err)
	}
	// utime and stime are fields 14 and 15, counted from behind the command's name.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}
