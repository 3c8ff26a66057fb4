package ridedrill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"syscall"
	"time"

	findings "github.com/starling-fleet/starling/loadtest/drill/check"
)

// Findings of the processes.
const (
	endedByItself = "a process that ended by itself"
	doesNotServe  = "a process that does not serve"
)

// killer kills and suspends owners of rides and trackers, and starts what was
// killed again.
type killer struct {
	w    *world
	rng  *rand.Rand
	logf func(string, ...any)

	// How often Redis was flushed, killed and suspended.
	flushed, redisKilled, redisSuspended int
	// back is when what was killed is started again, redisBack when Redis is, or goes
	// on.
	back      map[*role]time.Time
	redisBack time.Time
	// raised is the epoch that was raised, 0 if none was.
	raised int64

	mu       sync.Mutex
	kills    map[string]int
	zombies  map[string]int
	findings findings.Findings
}

func newKiller(w *world, logf func(string, ...any)) *killer {
	return &killer{w: w, rng: rand.New(rand.NewPCG(w.opts.Seed, 1<<34)), logf: logf, kills: make(map[string]int), zombies: make(map[string]int), back: make(map[*role]time.Time)}
}

// victims are the processes that decide something; with followers those alone that
// they are connected to.
func (k *killer) victims() (all []*role) {
	for _, p := range k.w.processes {
		if p.kind == "up" || p.kind == "rides" || p.kind == "tracker" && k.w.opts.Followers == 0 {
			all = append(all, p)
		}
	}
	return all
}

// run disturbs until ctx is done. Every process runs when it returns.
func (k *killer) run(ctx context.Context) {
	victims := k.victims()
	killAt, sleepAt, redisAt, raiseAt := k.next(k.w.opts.KillEvery), k.next(k.w.opts.SleepEvery), time.Time{}, time.Time{}
	if k.w.opts.RaiseEpoch {
		raiseAt = time.Now().Add(k.w.opts.Limit / 2)
	}
	if k.w.redis != nil {
		redisAt = k.next(k.w.opts.RedisEvery)
	}
	for sleep(ctx, 50*time.Millisecond) {
		now := time.Now()
		victim := victims[k.rng.IntN(len(victims))]
		switch {
		case !raiseAt.IsZero() && now.After(raiseAt):
			k.raise(ctx)
			raiseAt = time.Time{}
		case !k.back[victim].IsZero(): // it is away
		case !killAt.IsZero() && now.After(killAt):
			k.kill(victim)
			killAt = k.next(k.w.opts.KillEvery)
		case !sleepAt.IsZero() && now.After(sleepAt):
			k.suspend(ctx, victim)
			sleepAt = k.next(k.w.opts.SleepEvery)
		case !redisAt.IsZero() && now.After(redisAt):
			k.disturbRedis()
			redisAt = k.next(k.w.opts.RedisEvery)
		}
		for _, p := range k.w.processes {
			if p.EndedByItself() {
				k.finding(endedByItself, "%s: %s", p.name, p.LastOutput())
				k.start(p)
			}
		}
		k.bringBack(now)
	}
	k.bringBack(time.Now().Add(time.Hour))
}

// bringBack starts what has been away for long enough.
func (k *killer) bringBack(now time.Time) {
	for p, at := range k.back {
		if now.After(at) {
			delete(k.back, p)
			k.start(p)
		}
	}
	if k.redisBack.IsZero() || !now.After(k.redisBack) {
		return
	}
	k.redisBack = time.Time{}
	if k.redisSuspended == k.redisKilled { // it was suspended last
		if err := k.w.redis.Signal(syscall.SIGCONT, false); err != nil {
			k.finding(doesNotServe, "redis can't be woken: %v", err)
		}
		return
	}
	if err := k.w.redis.Start(); err != nil {
		k.finding(doesNotServe, "%v", err)
	}
}

// next is a time around a mean away; zero when there is none.
func (k *killer) next(mean time.Duration) time.Time {
	if mean == 0 {
		return time.Time{}
	}
	return time.Now().Add(mean/2 + time.Duration(k.rng.Int64N(int64(mean))))
}

func (k *killer) kill(p *role) {
	k.logf("kill %s", p.name)
	p.Kill()
	k.count(k.kills, p)
	if k.w.opts.Away == 0 || k.rng.IntN(4) == 0 {
		k.start(p)
		return
	}
	k.back[p] = k.next(k.w.opts.Away)
}

// suspend lets a process sleep longer than its session lasts, so that another
// takes over, and then go on.
func (k *killer) suspend(ctx context.Context, p *role) {
	k.logf("%s sleeps for %v", p.name, k.w.opts.Asleep)
	if err := p.Signal(syscall.SIGSTOP, false); err != nil {
		return // it was killed and starts again
	}
	sleep(ctx, k.w.opts.Asleep)
	if err := p.Signal(syscall.SIGCONT, false); err != nil {
		k.finding(endedByItself, "%s can't be woken: %v", p.name, err)
	}
	k.count(k.zombies, p)
}

// raise kills every process, raises the log's epoch as an operator does, and starts
// them again: in the new epoch trackers know no reservation and phones go on
// reporting that they are free.
func (k *killer) raise(ctx context.Context) {
	k.logf("kill everything and raise the epoch")
	for _, p := range k.w.processes {
		p.Kill()
	}
	clear(k.back)
	raising, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	out, err := exec.CommandContext(raising, k.w.opts.Binary, append([]string{"topics", "raise-epoch"}, k.w.clusterArgs()...)...).Output()
	if err == nil {
		_, err = fmt.Sscanf(string(out), "epoch %d", &k.raised)
	}
	if err != nil && ctx.Err() == nil {
		k.finding("an epoch that can't be raised", "%v: %s", err, out)
	}
	for _, p := range k.w.processes {
		k.start(p)
	}
}

// disturbRedis flushes Redis, kills it or suspends it, in turn.
func (k *killer) disturbRedis() {
	away := k.w.opts.Away
	switch {
	case !k.redisBack.IsZero(): // it is away
	case away > 0 && k.redisSuspended < k.redisKilled:
		if err := k.w.redis.Signal(syscall.SIGSTOP, false); err != nil {
			k.finding(endedByItself, "redis: %v", err)
			return
		}
		k.redisSuspended++
		k.redisBack = k.next(away)
	case k.flushed == k.redisKilled:
		if err := k.w.flushRedis(); err != nil {
			k.finding(doesNotServe, "redis can't be flushed: %v", err)
		}
		k.flushed++
	default:
		k.w.redis.Kill()
		k.redisKilled++
		if away > 0 {
			k.redisBack = k.next(away)
		} else if err := k.w.redis.Start(); err != nil {
			k.finding(doesNotServe, "%v", err)
		}
	}
}

func (k *killer) start(p *role) {
	if err := p.Start(); err != nil {
		k.finding(doesNotServe, "%v", err)
	}
}

// settle waits until every process serves.
func (k *killer) settle(ctx context.Context) error {
	for _, p := range k.w.processes {
		if _, err := p.WaitReady(ctx); err != nil {
			return fmt.Errorf("%s: %w", doesNotServe, err)
		}
	}
	return nil
}

func (k *killer) count(in map[string]int, p *role) {
	k.mu.Lock()
	defer k.mu.Unlock()
	in[p.kind]++
}

func (k *killer) finding(kind, format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings.Add(kind, format, args...)
	k.logf("OFF: %s: %s", kind, fmt.Sprintf(format, args...))
}
