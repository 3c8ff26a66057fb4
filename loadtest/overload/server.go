package overload

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/internal/freeport"
)

// server is the serving process.
type server struct {
	cmd                    *exec.Cmd
	ingest, matcher, admin string
	dir                    string
	said                   lastWords
	exited                 chan struct{}
	exitErr                error // set before exited is closed
}

// lastWords keeps the end of what is written to it.
type lastWords struct {
	mu  sync.Mutex
	buf []byte
}

func (w *lastWords) Write(p []byte) (int, error) {
	const keep = 4096
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if over := len(w.buf) - keep; over > 0 {
		w.buf = w.buf[over:]
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.buf))
}

// startServer starts `starling up` on a new local log and waits until it is
// ready.
func startServer(ctx context.Context, o *Options) (*server, error) {
	s := &server{exited: make(chan struct{})}
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return nil, err
	}
	s.ingest, s.matcher, s.admin = addrs[0], addrs[1], addrs[2]
	if s.dir, err = os.MkdirTemp(o.WorkDir, "starling-overload-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	args := append(append([]string{}, o.Starling[1:]...), "up", "--log-level", "warn",
		"--server-ingest-listen", s.ingest, "--server-matcher-listen", s.matcher, "--server-admin-listen", s.admin,
		"--local-directory", filepath.Join(s.dir, "log"),
		"--ingest-limits-server-bytes", strconv.FormatInt(o.ServerBytes, 10))
	s.cmd = exec.Command(o.Starling[0], args...)
	s.cmd.Stderr = &s.said
	dieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, fmt.Errorf("start the server: %w", err)
	}
	go func() { s.exitErr = s.cmd.Wait(); close(s.exited) }()
	if err := s.waitReady(ctx); err != nil {
		_ = s.stop()
		return nil, fmt.Errorf("start the server: %w; it said: %s", err, &s.said)
	}
	return s, nil
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		body, err := get(ctx, "http://"+s.admin+"/readyz")
		if err == nil {
			return body.Close()
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %w", s.exitErr)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the process and removes its log. Its error says that it ended
// otherwise than cleanly.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	_ = os.RemoveAll(s.dir)
	if s.exitErr != nil {
		return fmt.Errorf("the server ended with %w; it said: %s", s.exitErr, &s.said)
	}
	return nil
}

// get fetches a page; any answer but 200 is an error.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp.Body, nil
}

// metrics returns the process's metrics, each summed over its labels.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	body, err := get(ctx, "http://"+s.admin+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer body.Close()
	sums := map[string]float64{}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		blank := strings.LastIndexByte(line, ' ')
		if blank < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[blank+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics have the line %q: %w", line, err)
		}
		name, _, _ := strings.Cut(line[:blank], "{")
		sums[name] += value
	}
	return sums, lines.Err()
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
