package watch

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/starling-fleet/starling/matcher/query"
)

// Bounds of the interval between two updates; fleet.proto states them.
const (
	minWatchInterval = 50 * time.Millisecond
	maxWatchInterval = time.Minute
	defaultInterval  = time.Second
)

// readInterval returns the least time between two updates that a client chose.
func readInterval(f *query.Faults, d *durationpb.Duration) time.Duration {
	if d == nil {
		return defaultInterval
	}
	f.Need(d.CheckValid() == nil && d.AsDuration() >= minWatchInterval && d.AsDuration() <= maxWatchInterval,
		"min_interval", d.AsDuration(), "between %v and %v", minWatchInterval, maxWatchInterval)
	return d.AsDuration()
}

// pace has a call that watches send updates, each as soon as something has
// changed but not sooner after another than the client chose.
type pace struct {
	watcher  *Watcher
	ctx      context.Context
	interval time.Duration
	// wait reports whether there is nothing to read and the call has to wait for
	// wake or tick, which may be nil.
	wait func() bool
	wake <-chan struct{}
	tick <-chan time.Time
	// update looks and reports whether there was something to send.
	update func() (sent bool, err error)
}

// follow returns when the call has ended, the role has, or update fails.
func (p *pace) follow() error {
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	sent := p.watcher.now()
	for {
		if p.wait() {
			if err := p.sleep(p.wake, p.tick); err != nil {
				return err
			}
		}
		if rest := p.interval - p.watcher.now().Sub(sent); rest > 0 {
			pause.Reset(min(rest, p.interval)) // a clock that is set back holds nothing up
			if err := p.sleep(nil, pause.C); err != nil {
				return err
			}
		}
		did, err := p.update()
		if err != nil {
			return err
		}
		if did {
			sent = p.watcher.now()
		}
	}
}

// sleep returns nil when one of the two has come.
func (p *pace) sleep(wake <-chan struct{}, tick <-chan time.Time) error {
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.watcher.stopped:
		return query.HasStopped()
	case <-wake:
	case <-tick:
	}
	return nil
}
