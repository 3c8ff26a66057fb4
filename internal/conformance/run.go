package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// Options are how scenarios are run.
type Options struct {
	// Command is the client, with its arguments. It is run once in each life of
	// a scenario, with the feed on standard input, and ends with exit code 0 when
	// everything is acknowledged. Its environment has STARLING_INGEST (host:port
	// of gRPC), STARLING_JSON (a URL), STARLING_TOKEN and STARLING_ACK_TIMEOUT
	// (seconds).
	Command []string
	// Environ is the environment that the client's is added to.
	Environ []string
	// Seed draws feeds and scenarios.
	Seed uint64
	// Timeout bounds one scenario.
	Timeout time.Duration
	// AckTimeout is how long the client waits for an acknowledgement before it
	// gives a stream up: 30 s by the protocol.
	AckTimeout time.Duration
}

// Verdict is the judgement of one scenario.
type Verdict struct {
	Scenario string `json:"scenario"`
	Passed   bool   `json:"passed"`
	Counts
	Seconds  float64  `json:"seconds"`
	Breaches []Breach `json:"breaches"`
	// Said is the end of what the client wrote to standard error.
	Said string `json:"said"`
}

// draw returns the random numbers of a scenario by its seed and name.
func draw(seed uint64, s Scenario) *rand.Rand {
	var name uint64
	for _, c := range []byte(s.Name) {
		name = name*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, name))
}

// Feed returns what a client has to deliver in a scenario.
func (s Scenario) Feed(seed uint64) []*starlingv1.Report {
	return makeFeed(draw(seed, s), s.Vehicles, s.Reports)
}

func (s Scenario) newServer(judge *Judge, opts Options) *server {
	srv := &server{scenario: s, judge: judge, ackTimeout: opts.AckTimeout}
	if s.script != nil {
		srv.script = s.script(draw(opts.Seed+1, s))
	}
	return srv
}

// Run runs the client in one scenario. An error means that it could not be run.
func Run(ctx context.Context, s Scenario, opts Options) (Verdict, error) {
	begun := time.Now()
	limit := opts.Timeout
	if s.Silent {
		limit += opts.AckTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	feed := s.Feed(opts.Seed)
	judge := NewJudge(feed, nil)
	srv := s.newServer(judge, opts)
	srv.token = fmt.Sprintf("conformance-%d-%s", opts.Seed, s.Name)
	rpc, web, err := listen("127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return Verdict{}, err
	}
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.serve(serving, rpc, web) }()
	c := child{opts: opts, environ: append(append([]string{}, opts.Environ...),
		"STARLING_INGEST="+rpc.Addr().String(), "STARLING_JSON=http://"+web.Addr().String(), "STARLING_TOKEN="+srv.token,
		fmt.Sprintf("STARLING_ACK_TIMEOUT=%g", opts.AckTimeout.Seconds()))}
	runErr := c.lives(ctx, s, judge, feed)
	stop()
	if err := errors.Join(runErr, <-served); err != nil {
		return Verdict{}, err
	}
	return s.verdict(judge, begun, c.said.String()), nil
}

func (s Scenario) verdict(judge *Judge, begun time.Time, said string) Verdict {
	v := Verdict{Scenario: s.Name, Seconds: time.Since(begun).Seconds(), Said: said}
	v.Counts, v.Breaches = judge.Result()
	v.Passed = len(v.Breaches) == 0
	return v
}

var errTooLong = errors.New("it took too long")

func listen(rpcAddr, webAddr string) (rpc, web net.Listener, err error) {
	if rpc, err = net.Listen("tcp", rpcAddr); err != nil {
		return nil, nil, err
	}
	if web, err = net.Listen("tcp", webAddr); err != nil {
		_ = rpc.Close()
		return nil, nil, err
	}
	return rpc, web, nil
}

// child is the client as a process.
type child struct {
	opts    Options
	environ []string
	said    tail
}

// lives starts the client as often as the scenario says, each time with a part of
// the feed.
func (c *child) lives(ctx context.Context, s Scenario, judge *Judge, feed []*starlingv1.Report) error {
	processes := max(s.Processes, 1)
	for i := range processes {
		judge.ProcessStarted()
		from, to := len(feed)*i/processes, len(feed)*(i+1)/processes
		lines, err := FeedLines(feed[from:to])
		if err != nil {
			return err
		}
		code, err := c.live(ctx, lines)
		switch {
		case errors.Is(err, errTooLong):
			judge.Breach(RuleDelivered, "the client did not end in time")
			return nil
		case err != nil:
			return err
		}
		judge.Exited(code, to, s.Stops)
	}
	return nil
}

// live runs the client once and returns its exit code.
func (c *child) live(ctx context.Context, lines []byte) (code int, err error) {
	cmd := exec.CommandContext(ctx, c.opts.Command[0], c.opts.Command[1:]...)
	cmd.Env = c.environ
	cmd.Stdin = bytes.NewReader(lines)
	cmd.Stderr = &c.said
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case err != nil && cmd.ProcessState == nil:
		return 0, fmt.Errorf("start the client: %w", err)
	}
	return 0, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// RunAll runs scenarios, several at a time, and returns their verdicts in order.
func RunAll(ctx context.Context, scenarios []Scenario, opts Options, parallel int) ([]Verdict, error) {
	verdicts := make([]Verdict, len(scenarios))
	failed := make([]error, len(scenarios))
	slots := make(chan struct{}, max(parallel, 1))
	var running sync.WaitGroup
	for i, s := range scenarios {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if failed[i] = context.Cause(ctx); failed[i] == nil {
				verdicts[i], failed[i] = Run(ctx, s, opts)
			}
		})
	}
	running.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err // the others are of the same cause
		}
	}
	return verdicts, nil
}

// Serve plays one scenario at addresses of one's own to a client that somebody else
// runs, until everything of the feed is settled and the client has closed, or ctx
// is done. ready is told the addresses once they are open.
func Serve(ctx context.Context, s Scenario, opts Options, rpcAddr, webAddr, token string, ready func(rpc, web net.Addr)) (Verdict, error) {
	begun := time.Now()
	feed := s.Feed(opts.Seed)
	judge := NewJudge(feed, nil)
	srv := s.newServer(judge, opts)
	srv.token = token
	rpc, web, err := listen(rpcAddr, webAddr)
	if err != nil {
		return Verdict{}, err
	}
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.serve(serving, rpc, web) }()
	ready(rpc.Addr(), web.Addr())
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
			done = judge.Done()
		case err := <-served:
			stop()
			return Verdict{}, err
		}
	}
	if !s.Stops {
		judge.Exited(0, len(feed), false)
	}
	stop()
	if err := <-served; err != nil && !errors.Is(err, os.ErrClosed) {
		return Verdict{}, err
	}
	return s.verdict(judge, begun, ""), nil
}
