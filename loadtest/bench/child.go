package bench

import (
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

// child is a serving process.
type child struct {
	cmd                    *exec.Cmd
	ingest, matcher, admin string
	dir                    string
	exited                 chan struct{}
	exitErr                error
	stderr                 tailBuffer
}

// tailBuffer keeps the last bytes that were written to it.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - 4096; over > 0 {
		b.buf = b.buf[over:]
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.TrimSpace(b.buf))
}

// start starts a child on a new log and waits until it is ready.
func (b *bench) start(ctx context.Context, kind Kind, extra ...string) (*child, error) {
	c := &child{exited: make(chan struct{})}
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return nil, err
	}
	c.ingest, c.matcher, c.admin = addrs[0], addrs[1], addrs[2]
	b.started++
	if c.dir, err = os.MkdirTemp(b.opts.WorkDir, "starling-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for the log: %w", err)
	}
	command := append(b.command(kind, c), extra...)
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...)
	c.cmd.Stderr = &c.stderr
	dieWithParent(c.cmd)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	go func() { c.exitErr = c.cmd.Wait(); close(c.exited) }()
	if err := c.waitReady(ctx); err != nil {
		err = fmt.Errorf("start %s: %w; it said: %s", kind, err, c.stderr.String())
		c.stop()
		return nil, err
	}
	return c, nil
}

// command is the child's command line.
func (b *bench) command(kind Kind, c *child) []string {
	prefix := fmt.Sprintf("bench-%d-%d-", os.Getpid(), b.started)
	brokers := strings.Join(b.opts.KafkaBrokers, ",")
	if kind == StarlingWhole || kind == StarlingIngest && brokers != "" {
		role := "up"
		if kind == StarlingIngest {
			role = "ingest"
		}
		args := []string{
			b.opts.Starling, role, "--log-level", "warn",
			"--server-ingest-listen", c.ingest, "--server-matcher-listen", c.matcher, "--server-admin-listen", c.admin,
		}
		if brokers != "" {
			return append(args, "--kafka-brokers", brokers, "--kafka-topic-prefix", prefix)
		}
		return append(args, "--local-directory", filepath.Join(c.dir, "log"))
	}
	args := append([]string{}, b.opts.Serve...)
	return append(args, "-kind", string(kind), "-dir", filepath.Join(c.dir, "log"), "-ingest", c.ingest, "-admin", c.admin,
		"-kafka-brokers", brokers, "-kafka-topic-prefix", prefix)
}

func (c *child) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		resp, err := get(ctx, "http://"+c.admin+"/readyz")
		if err == nil {
			resp.Close()
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("it ended: %w", c.exitErr)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
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
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp.Body, nil
}

// stop ends the child and removes its log.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	_ = os.RemoveAll(c.dir)
}

// dial opens n connections for load.
func (c *child) dial(n int) (conns []*grpc.ClientConn, closeAll func(), err error) {
	closeAll = func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	for range n {
		conn, err := client.Dial(c.ingest, client.DialOptions{})
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, conn)
	}
	return conns, closeAll, nil
}

// clockTicksPerSecond is USER_HZ, which Linux fixes at 100 for /proc.
const clockTicksPerSecond = 100

// cpu is the CPU time that the child has used so far, in user and system mode
// (proc_pid_stat(5), fields 14 and 15).
func (c *child) cpu() (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid)
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a child (Linux only): %w", err)
	}
	// The second field is the program's name in brackets and may hold blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields after the name", path, len(fields))
	}
	user, uerr := strconv.ParseInt(fields[11], 10, 64)
	system, serr := strconv.ParseInt(fields[12], 10, 64)
	if uerr != nil || serr != nil {
		return 0, fmt.Errorf("%s can't be read", path)
	}
	return time.Duration(user+system) * time.Second / clockTicksPerSecond, nil
}
