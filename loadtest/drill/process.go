package drill

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/internal/freeport"
)

// process is one of Starling's processes, which is killed and started again
// with the same command line.
type process struct {
	name                   string
	role                   string
	binary                 string
	args                   []string
	ingest, matcher, admin string
	output                 *os.File

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	err     error
	wanted  bool // its end was wanted
	starts  int
	started time.Time
}

// newProcess prepares a process with ports of its own.
func newProcess(o *Options, name, role string, args ...string) (*process, error) {
	p := &process{name: name, role: role, binary: o.Binary}
	addrs, err := freeport.Addrs(3)
	if err != nil {
		return nil, err
	}
	p.ingest, p.matcher, p.admin = addrs[0], addrs[1], addrs[2]
	if p.output, err = os.Create(filepath.Join(o.Dir, name+".log")); err != nil {
		return nil, fmt.Errorf("create the file for what %s says: %w", name, err)
	}
	p.args = append([]string{
		role, "--partitions", fmt.Sprint(o.Partitions),
		"--server-ingest-listen", p.ingest, "--server-matcher-listen", p.matcher, "--server-admin-listen", p.admin,
	}, append(args, o.Args...)...)
	return p, nil
}

// start starts the process; it does not wait until it serves.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.wanted, p.started = cmd, exited, false, time.Now()
	p.starts++
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(exited)
	}()
	return nil
}

// signal sends a signal to the running process.
func (p *process) signal(s syscall.Signal, wanted bool) error {
	p.mu.Lock()
	p.wanted = p.wanted || wanted
	cmd := p.cmd
	p.mu.Unlock()
	if err := cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to %s: %w", s, p.name, err)
	}
	return nil
}

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	if p.signal(syscall.SIGKILL, true) == nil {
		<-p.ended()
	}
}

// stop ends the process in good order; a nil error says that it ended with
// success.
func (p *process) stop(ctx context.Context) error {
	if err := p.signal(syscall.SIGTERM, true); err != nil {
		return err
	}
	select {
	case <-p.ended():
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("stop %s: %w", p.name, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return fmt.Errorf("%s stopped with: %w; see %s", p.name, p.err, p.output.Name())
	}
	return nil
}

func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// endedByItself says that the process has ended although nobody wanted it to.
func (p *process) endedByItself() bool {
	select {
	case <-p.ended():
	default:
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.wanted
}

// ready asks once whether the process serves.
func (p *process) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// waitReady waits until the process serves and returns how long that took.
func (p *process) waitReady(ctx context.Context) (time.Duration, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !p.ready(ctx) {
		select {
		case <-p.ended():
			return 0, fmt.Errorf("%s ended before it served: %s", p.name, p.lastWords())
		case <-ctx.Done():
			return 0, fmt.Errorf("%s does not serve: %w: %s", p.name, ctx.Err(), p.lastWords())
		case <-tick.C:
		}
	}
	return time.Since(p.started), nil
}

// lastWords is the end of what the process said.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.output.Name())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-2000):]))
}
