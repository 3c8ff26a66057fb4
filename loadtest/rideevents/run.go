package rideevents

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/starling-fleet/starling/internal/freeport"
	"github.com/starling-fleet/starling/internal/latency"
	"github.com/starling-fleet/starling/internal/retry"
	"github.com/starling-fleet/starling/loadtest/process"
)

// target is a server that is measured.
type target interface {
	name() string
	running() *process.Process
	// prepare does what has to be done before anybody can subscribe.
	prepare(ctx context.Context) error
	// subscribe opens the subscriptions of a connection, calls opened once the server
	// has answered all of them and ready with each that is to be sent positions from
	// now on, and reads them until ctx is done.
	subscribe(ctx context.Context, connection int, opened, ready func()) error
	// publishers returns who sends positions; each is called by one goroutine, with
	// those that are due.
	publishers(ctx context.Context) ([]publisher, error)
	stop() error
}

// publisher sends where vehicles are now.
type publisher interface {
	publish(vehicles []int) error
	close() error
}

const (
	// publishTick is the pause between two looks at what is due.
	publishTick = 5 * time.Millisecond
	// publisherCount is how many connections reports or publications come over.
	publisherCount = 8
	// startPatience is how long the preparation may take.
	startPatience = 5 * time.Minute
)

// audience is what subscribers were sent.
type audience struct {
	measuring           atomic.Bool
	toClient, fromLog   latency.Histogram
	sent, delivered     atomic.Int64
	ready, begun        atomic.Int64
	everBegun, measured []atomic.Bool // by subscriber
}

// take notes a position; loggedMS is 0 if unknown.
func (a *audience) take(subscriber int, sentMS, loggedMS int64) {
	if !a.everBegun[subscriber].Load() {
		a.everBegun[subscriber].Store(true)
		a.begun.Add(1)
	}
	if !a.measuring.Load() {
		return
	}
	now := time.Now()
	a.delivered.Add(1)
	a.measured[subscriber].Store(true)
	a.toClient.Record(now.Sub(time.UnixMilli(sentMS)))
	if loggedMS > 0 {
		a.fromLog.Record(now.Sub(time.UnixMilli(loggedMS)))
	}
}

// Run measures. It returns an error if it could not; goals that were missed are
// in the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("events of rides: %w", err)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	result := &Result{Options: o}
	for range o.Rounds {
		s, err := round(ctx, &o, startStarling)
		if err != nil {
			return result, fmt.Errorf("measure Starling: %w", err)
		}
		result.Starling = append(result.Starling, s)
		if o.Centrifugo == "" {
			continue
		}
		if s, err = round(ctx, &o, startCentrifugo); err != nil {
			return result, fmt.Errorf("measure Centrifugo: %w", err)
		}
		result.Centrifugo = append(result.Centrifugo, s)
	}
	return result, nil
}

// measurement is one server in one round.
type measurement struct {
	opts     *Options
	audience *audience
	target   target
	redis    *process.Process // nil without
}

// round measures one server once.
func round(ctx context.Context, o *Options, start func(ctx context.Context, o *Options, redis string, a *audience) (target, error)) (served Served, err error) {
	m := &measurement{opts: o, audience: &audience{everBegun: make([]atomic.Bool, o.Subscribers), measured: make([]atomic.Bool, o.Subscribers)}}
	addr := ""
	if o.Redis != "" {
		var dir string
		if m.redis, addr, dir, err = startRedis(o); err != nil {
			return served, err
		}
		defer func() { m.redis.Kill(); _ = os.RemoveAll(dir) }()
	}
	if m.target, err = start(ctx, o, addr, m.audience); err != nil {
		return served, err
	}
	defer func() { err = errors.Join(err, m.target.stop()) }()
	return m.run(ctx)
}

// startRedis starts a Redis that keeps nothing on disk.
func startRedis(o *Options) (p *process.Process, addr, dir string, err error) {
	addrs, err := freeport.Addrs(1)
	if err != nil {
		return nil, "", "", err
	}
	host, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return nil, "", "", err
	}
	if dir, err = os.MkdirTemp(o.WorkDir, "starling-events-redis-"); err != nil {
		return nil, "", "", fmt.Errorf("make a folder for Redis: %w", err)
	}
	p = process.New(process.Spec{Name: "redis-server", Command: []string{
		o.Redis, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning",
	}})
	if err := p.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, "", "", fmt.Errorf("%w (Debian: apt-get install redis-server)", err)
	}
	return p, addrs[0], dir, nil
}

func (m *measurement) run(ctx context.Context) (served Served, err error) {
	say := func(s string) { m.opts.Progress(m.target.name() + ": " + s) }
	preparing, prepared := context.WithTimeout(ctx, startPatience)
	defer prepared()
	say("preparing")
	if err := m.target.prepare(preparing); err != nil {
		return served, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	publishing, silence := context.WithCancel(groupCtx)
	subscribed, leave := context.WithCancel(groupCtx)
	defer func() {
		leave()
		silence()
		if cause := group.Wait(); cause != nil {
			err = cause // the first, of which the others follow
		}
	}()
	say("subscribing")
	subscriptions, subscribed := errgroup.WithContext(subscribed)
	if err := m.subscribe(preparing, subscribed, subscriptions); err != nil {
		return served, err
	}
	group.Go(subscriptions.Wait)
	if err := m.until(preparing, groupCtx, &m.audience.ready, "subscribers are ready"); err != nil {
		return served, err
	}
	publishers, err := m.target.publishers(ctx)
	if err != nil {
		return served, err
	}
	for i, p := range publishers {
		group.Go(func() error { return errors.Join(m.pace(publishing, p, i, len(publishers)), p.close()) })
	}
	if err := m.until(preparing, groupCtx, &m.audience.begun, "subscribers have a position"); err != nil {
		return served, err
	}
	if err := retry.Sleep(groupCtx, m.opts.Warmup); err != nil {
		return served, err
	}
	say("measuring")
	if m.opts.Measuring != nil {
		m.opts.Measuring(m.target.name(), m.target.running().PID())
	}
	if err := m.count(groupCtx, &served); err != nil {
		return served, err
	}
	leave()
	if err := subscriptions.Wait(); err != nil {
		return served, err
	}
	say("without subscribers")
	if err := retry.Sleep(groupCtx, time.Second); err != nil {
		return served, err
	}
	return served, m.baseline(groupCtx, &served)
}

// subscribe opens the connections, one after another: a server bounds the requests
// that it reads at a time.
func (m *measurement) subscribe(ctx, subscribed context.Context, subscriptions *errgroup.Group) error {
	for n := range m.opts.Connections {
		opened := make(chan struct{})
		subscriptions.Go(func() error {
			return m.target.subscribe(subscribed, n, sync.OnceFunc(func() { close(opened) }), func() { m.audience.ready.Add(1) })
		})
		select {
		case <-opened:
		case <-subscribed.Done():
			return subscriptions.Wait()
		case <-ctx.Done():
			return fmt.Errorf("connection %d is not answered: %w", n, ctx.Err())
		}
	}
	return nil
}

// until waits until a count has reached the number of subscribers.
func (m *measurement) until(ctx, groupCtx context.Context, count *atomic.Int64, what string) error {
	for count.Load() < int64(m.opts.Subscribers) {
		if err := retry.Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d %s: %w", count.Load(), m.opts.Subscribers, what, err)
		}
		if groupCtx.Err() != nil {
			return groupCtx.Err()
		}
	}
	return nil
}

// pace has a publisher send where each vehicle of its share is, once in every
// period, until ctx is done.
func (m *measurement) pace(ctx context.Context, p publisher, number, of int) error {
	from, to := m.opts.Subscribers*number/of, m.opts.Subscribers*(number+1)/of
	tick := time.NewTicker(publishTick)
	defer tick.Stop()
	begun, count := time.Now(), 0
	var vehicles []int
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		vehicles = vehicles[:0]
		for due := int(float64(to-from) * float64(time.Since(begun)) / float64(m.opts.Period)); count < due; count++ {
			vehicles = append(vehicles, from+count%(to-from))
		}
		if len(vehicles) == 0 {
			continue
		}
		if err := p.publish(vehicles); err != nil {
			return err
		}
		m.audience.sent.Add(int64(len(vehicles)))
	}
}

// usage is what processes have used so far.
type usage struct {
	server, redis, own time.Duration
	sent               int64
	at                 time.Time
}

func (m *measurement) usage() (u usage, err error) {
	if u.server, err = m.target.running().CPU(); err != nil {
		return u, err
	}
	if m.redis != nil {
		if u.redis, err = m.redis.CPU(); err != nil {
			return u, err
		}
	}
	var own syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	u.own, u.sent, u.at = time.Duration(own.Utime.Nano()+own.Stime.Nano()), m.audience.sent.Load(), time.Now()
	return u, err
}

// count measures for Duration.
func (m *measurement) count(ctx context.Context, s *Served) error {
	before, err := m.usage()
	if err != nil {
		return err
	}
	a := m.audience
	a.measuring.Store(true)
	if err := retry.Sleep(ctx, m.opts.Duration); err != nil {
		return err
	}
	a.measuring.Store(false)
	after, err := m.usage()
	if err != nil {
		return err
	}
	took, delivered := after.at.Sub(before.at).Seconds(), float64(a.delivered.Load())
	s.Sent, s.Delivered = float64(after.sent-before.sent)/took, delivered/took
	s.ToClient, s.FromLog = a.toClient.Summary(), a.fromLog.Summary()
	s.CPUMicros, s.RedisMicros = micros(after.server-before.server)/delivered, micros(after.redis-before.redis)/delivered
	s.ServerCores, s.GeneratorCores = (after.server-before.server).Seconds()/took, (after.own-before.own).Seconds()/took
	for i := range a.measured {
		if !a.measured[i].Load() {
			s.Silent++
		}
	}
	return nil
}

// baseline measures what a report or publication costs when nobody has subscribed.
func (m *measurement) baseline(ctx context.Context, s *Served) error {
	before, err := m.usage()
	if err != nil {
		return err
	}
	if err := retry.Sleep(ctx, m.opts.Duration/2); err != nil {
		return err
	}
	after, err := m.usage()
	if err != nil {
		return err
	}
	s.BareCPUMicros = micros(after.server-before.server) / float64(after.sent-before.sent)
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
