package matcher

import (
	"context"
	"time"
)

// pace has a call that watches send updates, each as soon as something has
// changed but not sooner after another than the client chose.
type pace struct {
	m        *Matcher
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
	sent := p.m.now()
	for {
		if p.wait() {
			if err := p.sleep(p.wake, p.tick); err != nil {
				return err
			}
		}
		if rest := p.interval - p.m.now().Sub(sent); rest > 0 {
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
			sent = p.m.now()
		}
	}
}

// sleep returns nil when one of the two has come.
func (p *pace) sleep(wake <-chan struct{}, tick <-chan time.Time) error {
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.m.stopped:
		return hasStopped()
	case <-wake:
	case <-tick:
	}
	return nil
}
