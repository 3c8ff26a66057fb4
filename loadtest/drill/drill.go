package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/starling-fleet/starling/loadtest/conns"
	"github.com/starling-fleet/starling/schemas/starlingv1"
)

const (
	// startPatience is how long the first start may take.
	startPatience = 2 * time.Minute
	// drainPatience is how long the last acknowledgements may take, and how
	// long the fleet may take to settle.
	drainPatience = 2 * time.Minute
	// quiet is how long the fleet must not change before it counts as settled:
	// longer than the 5 s after which a partition without an owner is stale.
	quiet = 7 * time.Second
)

// reconnect brings a connection back soon after a kill.
var reconnect = conns.Reconnect(50*time.Millisecond, 500*time.Millisecond, 1.5)

// Run makes one drill and returns its account. It returns an error if the drill
// could not be made; what it found is in the account.
func Run(ctx context.Context, o Options) (*Account, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	d := &drill{opts: o, began: time.Now()}
	account, err := d.run(ctx)
	for _, p := range d.processes {
		p.Kill()
		_ = p.output.Close()
	}
	d.conns.Close()
	if err != nil {
		return nil, fmt.Errorf("drill: %w (seed %d)", err, o.Seed)
	}
	return account, nil
}

type drill struct {
	opts      Options
	began     time.Time
	processes []*role
	conns     conns.Set
	ingest    []grpc.ClientConnInterface // to ingest
	matchers  []grpc.ClientConnInterface
	logging   sync.Mutex
}

func (d *drill) logf(format string, args ...any) {
	if d.opts.Progress == nil {
		return
	}
	d.logging.Lock()
	defer d.logging.Unlock()
	_, _ = fmt.Fprintf(d.opts.Progress, "%7.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *drill) run(ctx context.Context) (*Account, error) {
	if err := d.up(ctx); err != nil {
		return nil, err
	}
	f, k, p := newFleet(d.opts, d.ingest), newKiller(d.opts, d.processes, d.logf), newProbe(&d.opts, d.matchers)
	d.logf("%d vehicles report %d fixes/s over %d streams", d.opts.vehicles(), d.opts.FixesPerSecond, d.opts.Streams)
	account := &Account{Options: d.opts}
	disturb := func(ctx context.Context) error { k.run(ctx); return nil }
	if d.opts.Rollout {
		r := d.newRollout(f)
		disturb = func(ctx context.Context) error {
			err := r.follow(ctx)
			account.Gaps = r.gaps
			account.Findings.Merge(&r.findings)
			return err
		}
	}
	if d.opts.LogClock != nil {
		disturb = func(ctx context.Context) error { return d.jumpClocks(ctx, f) }
	}
	if err := d.disturb(ctx, f, k, p, disturb, account); err != nil {
		return nil, err
	}
	fleet, err := d.rest(ctx)
	if err != nil {
		account.Findings.Add("a fleet that does not settle", "%v", err)
	}
	if err := d.down(ctx); err != nil {
		account.Findings.Add("a process that does not stop in good order", "%v", err)
	}
	checker, err := verify(ctx, d.opts, f.reported(), fleet, d.logf)
	if err != nil {
		return nil, err
	}
	account.take(f, k, p, checker)
	return account, nil
}

// up starts every process and opens the connections.
func (d *drill) up(ctx context.Context) error {
	var err error
	if d.processes, err = d.layOut(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for _, p := range d.processes {
		if p.resting {
			continue
		}
		if err := p.Start(); err != nil {
			return err
		}
		// One after the other: the first creates the topics.
		if _, err := p.WaitReady(ctx); err != nil {
			return err
		}
		if p.role == "up" || p.role == "ingest" {
			const connections = 2 // of many streams each
			for range connections {
				conn, err := d.conns.Dial(p.ingest, reconnect)
				if err != nil {
					return err
				}
				d.ingest = append(d.ingest, conn)
			}
		}
		if p.role == "up" || p.role == "matcher" {
			conn, err := d.conns.Dial(p.matcher, reconnect)
			if err != nil {
				return err
			}
			d.matchers = append(d.matchers, conn)
		}
	}
	return nil
}

func (d *drill) layOut() (processes []*role, err error) {
	add := func(name, role string, args ...string) {
		p, perr := newRole(&d.opts, name, role, args...)
		if perr != nil {
			err = errors.Join(err, perr)
			return
		}
		processes = append(processes, p)
	}
	if !d.opts.onKafka() {
		add("up", "up", "--local-directory", d.opts.log().LocalDir())
		return processes, err
	}
	args := []string{"--kafka-brokers", strings.Join(d.opts.KafkaBrokers, ","), "--kafka-topic-prefix", d.opts.log().TopicPrefix()}
	add("matcher-1", "matcher", args...)
	if d.opts.Rollout {
		add("matcher-2", "matcher", args...)
		add(spareTracker, "tracker", args...)
		if err == nil {
			processes[len(processes)-1].resting = true
		}
	}
	add("tracker-1", "tracker", args...)
	add("tracker-2", "tracker", args...)
	add("ingest-1", "ingest", args...)
	add("ingest-2", "ingest", args...)
	return processes, err
}

// disturb has the fleet report while processes are disturbed, until everything
// is acknowledged.
func (d *drill) disturb(ctx context.Context, f *fleet, k *killer, p *probe, disturb func(context.Context) error, account *Account) error {
	background, endBackground := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer endBackground()
	wg.Go(func() { k.guard(background) })
	wg.Go(func() { p.run(background) })
	wg.Go(func() { account.LongestWithoutAck = f.watchAcks(background) })

	reporting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	stop, drained := make(chan struct{}), make(chan struct{})
	go func() { f.run(reporting, stop); close(drained) }()
	if err := disturb(ctx); err != nil {
		giveUp()
		<-drained
		return err
	}
	// The last process must be back before the fleet's last reports.
	sleep(ctx, max(time.Second, time.Until(f.started.Add(d.opts.Duration))))
	account.Reported, account.AckedWhileReporting = time.Since(f.started), f.acked.Load()
	close(stop)
	d.logf("the fleet sends its last reports")
	select {
	case <-drained:
	case <-time.After(drainPatience):
		giveUp()
		<-drained
	case <-ctx.Done():
		giveUp()
		<-drained
		return ctx.Err()
	}
	k.watch.Wait()
	return nil
}

// watchAcks returns the longest time in which no stream was acknowledged
// anything.
func (f *fleet) watchAcks(ctx context.Context) (longest time.Duration) {
	for sleep(ctx, 20*time.Millisecond) {
		longest = max(longest, time.Since(time.Unix(0, f.lastAck.Load())))
	}
	return longest
}

// rest waits until everything is consumed and returns what is served.
func (d *drill) rest(ctx context.Context) (map[string]*starlingv1.Vehicle, error) {
	d.logf("waiting until everything is consumed")
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	fleets := make([]map[string]*starlingv1.Vehicle, len(d.matchers))
	var group errgroup.Group
	for i, m := range d.matchers {
		group.Go(func() (err error) {
			fleets[i], err = settled(ctx, m, quiet)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, other := range fleets[1:] {
		if err := sameFleet(fleets[0], other); err != nil {
			return nil, err
		}
	}
	return fleets[0], nil
}

// sameFleet returns how two matchers differ that have consumed the same.
func sameFleet(a, b map[string]*starlingv1.Vehicle) error {
	if len(a) != len(b) {
		return fmt.Errorf("one matcher serves %d vehicles, another %d", len(a), len(b))
	}
	for id, v := range a {
		o := b[id]
		if o == nil || !proto.Equal(v.Position, o.Position) || !proto.Equal(v.DeviceTime, o.DeviceTime) || !proto.Equal(v.SeenTime, o.SeenTime) ||
			!proto.Equal(v.FixCounts, o.FixCounts) || v.Availability != o.Availability {
			return fmt.Errorf("one matcher serves %s as %v, another as %v", id, v, o)
		}
	}
	return nil
}

// down stops every process gracefully, ingest first.
func (d *drill) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	var err error
	for _, p := range slices.Backward(d.processes) {
		if p.resting {
			continue
		}
		err = errors.Join(err, p.Stop(ctx))
	}
	return err
}
