// Package process starts, watches and ends the child processes that drills and
// measurements drive: mostly Starling's own binary, whose admin server reports
// whether it is ready.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Spec describes a process to start.
type Spec struct {
	// Name is its name in errors.
	Name string
	// Command is the binary and its arguments; every start uses the same.
	Command []string
	// Admin is the address of its admin HTTP server.
	Admin string
	// Output, if not nil, gets what it writes to stdout and stderr, in addition to
	// what LastOutput keeps.
	Output io.Writer
}

// Process is a child process that may be started again after it has ended. Its
// methods may be called concurrently, but Start only when nothing runs.
type Process struct {
	spec   Spec
	recent tail

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil before the first start
	exited chan struct{} // closed when cmd has ended
	err    error         // cmd's, set before exited is closed
	wanted bool          // a signal was to end cmd
	began  time.Time     // when cmd was started
	token  string        // for the admin server; empty for none
}

// New prepares a process; Start starts it.
func New(spec Spec) *Process { return &Process{spec: spec} }

// Start starts the process and does not wait until it serves. On Linux the
// kernel kills it when this process dies.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.spec.Command[0], p.spec.Command[1:]...)
	var output io.Writer = &p.recent
	if p.spec.Output != nil {
		output = io.MultiWriter(&p.recent, p.spec.Output)
	}
	cmd.Stdout, cmd.Stderr = output, output
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.err, p.wanted, p.began = cmd, exited, nil, false, time.Now()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(exited)
	}()
	return nil
}

// Authorize has the admin server asked with a token from now on.
func (p *Process) Authorize(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
}

// Started reports whether the process was started at least once.
func (p *Process) Started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// PID is the id of the process that was started last.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Signal sends a signal to the running process. Wanted means that EndedByItself
// does not count an end that the signal causes.
func (p *Process) Signal(s syscall.Signal, wanted bool) error {
	p.mu.Lock()
	p.wanted = p.wanted || wanted
	cmd := p.cmd
	p.mu.Unlock()
	if err := cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to %s: %w", s, p.spec.Name, err)
	}
	return nil
}

// Kill ends the process at once, if it was started, and waits for its end.
func (p *Process) Kill() {
	if p.Started() && p.Signal(syscall.SIGKILL, true) == nil {
		<-p.Ended()
	}
}

// Stop ends the process by SIGTERM, or kills it if ctx is done first. It returns
// nil if the process ended with status 0.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM, true); err != nil {
		return err
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: %w", p.spec.Name, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return fmt.Errorf("%s stopped with: %w; its output: %s", p.spec.Name, p.err, &p.recent)
	}
	return nil
}

// StopWithin is Stop with a time limit.
func (p *Process) StopWithin(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return p.Stop(ctx)
}

// Ended is closed when the process that was started last has ended.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// EndedByItself reports whether the process has ended without a signal that wanted
// it to.
func (p *Process) EndedByItself() bool {
	select {
	case <-p.Ended():
	default:
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.wanted
}

// LastOutput is the end of what the process wrote, over all its starts.
func (p *Process) LastOutput() string { return p.recent.String() }

// Ready asks the admin server once whether the process is ready.
func (p *Process) Ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	body, err := p.Get(ctx, "/readyz")
	if err != nil {
		return false
	}
	return body.Close() == nil
}

// WaitReady waits until the process serves and returns how long after its start
// that was.
func (p *Process) WaitReady(ctx context.Context) (time.Duration, error) {
	p.mu.Lock()
	began, exited := p.began, p.exited
	p.mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !p.Ready(ctx) {
		select {
		case <-exited:
			return 0, fmt.Errorf("%s ended before it served: %s", p.spec.Name, &p.recent)
		case <-ctx.Done():
			return 0, fmt.Errorf("%s does not serve: %w: %s", p.spec.Name, ctx.Err(), &p.recent)
		case <-tick.C:
		}
	}
	return time.Since(began), nil
}

// ErrNotOK is an answer of the admin server other than 200.
var ErrNotOK = errors.New("not OK")

// Get fetches a page of the admin server. The caller closes it.
func (p *Process) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	url := "http://" + p.spec.Admin + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	token := p.token
	p.mu.Unlock()
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s: %w", url, resp.Status, ErrNotOK)
	}
	return resp.Body, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const keep = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - keep; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
