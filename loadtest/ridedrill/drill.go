package ridedrill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// settlePatience is how long the last rides may take to end, and the vehicles to
// be free.
const settlePatience = 3 * time.Minute

// Run makes one drill and returns its account. It returns an error if the drill
// could not be made; what it found is in the account.
func Run(ctx context.Context, o Options) (*Account, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("drill of rides: %w", err)
	}
	d := &drill{w: &world{opts: o, ridesArgs: o.ridesArgs()}, history: newHistory(), stop: make(chan struct{})}
	defer d.w.end()
	account, err := d.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("drill of rides: %w (seed %d)", err, o.Seed)
	}
	return account, nil
}

type drill struct {
	w        *world
	history  *history
	stop     chan struct{} // closed when riders ask for no more
	settling atomic.Bool
	logging  sync.Mutex
}

func (d *drill) logf(format string, args ...any) {
	if d.w.opts.Progress == nil {
		return
	}
	d.logging.Lock()
	defer d.logging.Unlock()
	_, _ = fmt.Fprintf(d.w.opts.Progress, "%7.1f s  %s\n", time.Since(d.history.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *drill) run(ctx context.Context) (*Account, error) {
	if err := d.w.start(ctx); err != nil {
		return nil, err
	}
	account := &Account{Options: d.w.opts}
	phoning, hangUp := context.WithCancel(ctx)
	phones := d.phones(phoning)
	defer func() { hangUp(); phones.Wait() }()
	if err := d.disturbed(ctx, account); err != nil {
		return nil, err
	}
	d.settling.Store(true)
	if err := d.free(ctx); err != nil {
		account.Findings.Add("vehicles that do not become free", "%v", err)
	}
	hangUp()
	phones.Wait()
	if err := d.w.stop(ctx); err != nil {
		account.Findings.Add("a process that does not stop in good order", "%v", err)
	}
	if err := d.verify(ctx, account); err != nil {
		return nil, err
	}
	account.conclude()
	return account, nil
}

// phones starts the drivers' apps.
func (d *drill) phones(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	for n := range d.w.opts.Vehicles {
		p := newPhone(d.w, n, d.history, &d.settling)
		wg.Go(func() { p.report(ctx) })
		wg.Go(func() { p.drive(ctx) })
	}
	return &wg
}

// disturbed has the riders ask for rides while processes are killed, until there
// were enough proposals, and then until every ride has ended.
func (d *drill) disturbed(ctx context.Context, account *Account) error {
	riding, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var riders errgroup.Group
	for n := range d.w.opts.Riders {
		r := newRider(d.w, n, d.history, d.stop)
		riders.Go(func() error { return r.run(riding) })
	}
	for n := range d.w.opts.Followers {
		f := newFollower(d.w, n, d.history, d.stop)
		riders.Go(func() error { return f.run(riding) })
	}
	k := newKiller(d.w, d.logf)
	disturbing, calm := context.WithCancel(ctx)
	calmed := make(chan struct{})
	go func() { k.run(disturbing); close(calmed) }()
	account.Counted = d.count(ctx)
	account.Ridden = time.Since(d.history.began)
	calm()
	<-calmed
	ended := make(chan error, 1)
	close(d.stop)
	d.logf("the riders ask for no more")
	go func() { ended <- riders.Wait() }()
	patience, done := context.WithTimeout(ctx, settlePatience)
	defer done()
	err := k.settle(patience)
	select {
	case unfinished := <-ended:
		err = errors.Join(err, unfinished)
	case <-patience.Done():
		giveUp()
		err = errors.Join(err, <-ended)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		account.Findings.Add("a ride that its rider could not bring to its end", "%v", err)
	}
	account.Findings.Merge(&k.findings)
	account.Kills, account.Zombies, account.Flushed, account.RedisKilled, account.RedisSuspended = k.kills, k.zombies, k.flushed, k.redisKilled, k.redisSuspended
	account.Raised = k.raised
	if d.w.opts.RaiseEpoch && k.raised == 0 {
		account.Findings.Add("a drill that shows nothing", "it ended before the epoch was raised")
	}
	return nil
}

// count waits until the owners have made enough proposals, or for the time limit,
// and returns how many they have counted. What a killed process had counted since
// the last look is missing.
func (d *drill) count(ctx context.Context) int64 {
	var whole, shown float64
	last := make(map[*role]float64)
	deadline := time.Now().Add(d.w.opts.Limit)
	for whole < float64(d.w.opts.Proposals) && time.Now().Before(deadline) && sleep(ctx, 250*time.Millisecond) {
		for _, p := range d.w.processes {
			if p.kind != "up" && p.kind != "rides" {
				continue
			}
			one, cancel := context.WithTimeout(ctx, time.Second)
			m, err := p.Metrics(one)
			cancel()
			if err != nil {
				continue
			}
			now := m["starling_rides_proposals_total"]
			if now < last[p] {
				last[p] = 0 // it has started again
			}
			whole += now - last[p]
			last[p] = now
		}
		if every := math.Max(1000, float64(d.w.opts.Proposals)/20); whole >= shown+every {
			shown = whole
			d.logf("%.0f proposals", whole)
		}
	}
	return int64(whole)
}

// free waits until no vehicle is held any more.
func (d *drill) free(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for n := range d.w.opts.Vehicles {
		name := fmt.Sprintf("vehicles/car-%03d", n)
		for {
			v, err := d.w.fleet.GetVehicle(ctx, &starlingv1.GetVehicleRequest{Name: name})
			if err == nil && v.GetDispatchable() {
				break
			}
			if !sleep(ctx, 50*time.Millisecond) {
				return fmt.Errorf("%s: %w", name, errors.Join(ctx.Err(), err))
			}
		}
	}
	return nil
}
