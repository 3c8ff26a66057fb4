package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/drill/check"
)

// killer ends processes and starts them again.
type killer struct {
	opts      Options
	processes []*role
	rng       *rand.Rand
	logf      func(string, ...any)

	watch sync.WaitGroup
	mu    sync.Mutex
	// Guarded by mu:
	kills    map[string]int // by role
	zombies  int
	serving  []time.Duration // from a start to serving
	cutShort int             // starts that were killed before they served
	findings check.Findings
}

func newKiller(o Options, processes []*role, logf func(string, ...any)) *killer {
	return &killer{opts: o, processes: processes, rng: rand.New(rand.NewPCG(o.Seed, 1<<34)), logf: logf, kills: map[string]int{}}
}

// run disturbs until all kills are done or ctx is. Every process runs again
// when it returns.
func (k *killer) run(ctx context.Context) {
	n := k.opts.Kills + k.opts.Zombies
	if n == 0 {
		return
	}
	zombieAt := map[int]bool{}
	for _, at := range k.rng.Perm(n)[:k.opts.Zombies] {
		zombieAt[at] = true
	}
	began := time.Now()
	slot := k.opts.Duration / time.Duration(n+1)
	for i := range n {
		// Somewhere in its slot; a process may still be starting.
		at := began.Add(time.Duration((float64(i) + 0.5 + k.rng.Float64()) * float64(slot)))
		if !sleep(ctx, time.Until(at)) {
			return
		}
		if zombieAt[i] {
			k.zombie(ctx)
			continue
		}
		p := k.processes[k.rng.IntN(len(k.processes))]
		k.logf("kill %d of %d: %s", i+1, n, p.name)
		k.end(p)
		k.mu.Lock()
		k.kills[p.role]++
		k.mu.Unlock()
		sleep(ctx, time.Duration(k.rng.Int64N(int64(300*time.Millisecond))))
		k.startAgain(ctx, p)
	}
}

// stopLimit is what server.drain_timeout promises of a stop, and a moment for a
// machine that is busy with the load.
const stopLimit = 12 * time.Second

// end kills a process, or stops it in good order.
func (k *killer) end(p *role) {
	if !k.opts.Stop {
		p.Kill()
		return
	}
	k.watch.Wait() // it serves
	began := time.Now()
	if err := p.StopWithin(time.Duration(float64(stopLimit) * k.opts.slack())); err != nil {
		k.finding("a process that does not stop in good order", "%s: %v", p.name, err)
	}
	k.logf("%s stopped in %v", p.name, round(time.Since(began)))
}

// zombie stops a tracker for longer than its session lasts and resumes it.
func (k *killer) zombie(ctx context.Context) {
	var trackers []*role
	for _, p := range k.processes {
		if p.role == "tracker" {
			trackers = append(trackers, p)
		}
	}
	p := trackers[k.rng.IntN(len(trackers))]
	const asleep = 10 * time.Second // the session timeout is 6 s
	k.logf("zombie: %s sleeps for %v", p.name, asleep)
	if err := p.Signal(syscall.SIGSTOP, false); err != nil {
		k.finding("a process that can't be stopped", "%v", err)
		return
	}
	sleep(ctx, asleep)
	if err := p.Signal(syscall.SIGCONT, false); err != nil {
		k.finding("a process that can't be woken", "%v", err)
	}
	sleep(ctx, 3*time.Second) // it tries to publish and to checkpoint before the next kill
	k.mu.Lock()
	k.zombies++
	k.mu.Unlock()
}

// startAgain starts a process and measures in the background how long it takes
// until it serves.
func (k *killer) startAgain(ctx context.Context, p *role) {
	if err := p.Start(); err != nil {
		k.finding("a process that does not start", "%v", err)
		return
	}
	k.watch.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		exited := p.Ended()
		took, err := p.WaitReady(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		select {
		case <-exited:
			k.cutShort++
			return
		default:
		}
		if err != nil && ctx.Err() == nil {
			k.findings.Add("a process that does not serve", "%v", err)
		} else if err == nil {
			k.serving = append(k.serving, took)
		}
	})
}

// guard starts processes again that end by themselves, which none should.
func (k *killer) guard(ctx context.Context) {
	for sleep(ctx, 50*time.Millisecond) {
		for _, p := range k.processes {
			if p.EndedByItself() {
				k.finding("a process that ended by itself", "%s: %s", p.name, p.LastOutput())
				k.startAgain(ctx, p)
			}
		}
	}
}

func (k *killer) finding(kind, format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings.Add(kind, format, args...)
	k.logf("OFF: %s: %s", kind, fmt.Sprintf(format, args...))
}

// sleep returns false when ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	return retry.Sleep(ctx, d) == nil
}
