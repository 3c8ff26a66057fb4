package nearest

import (
	"context"
	"time"

	"github.com/starling-fleet/starling/internal/retry"
)

// target is a server under test with a fleet in it.
type target interface {
	name() string
	// fill puts every vehicle in and returns when all can be found.
	fill(ctx context.Context, fleet []vehicle) error
	// update keeps moving the fleet at a rate until ctx is done.
	update(ctx context.Context, fleet []vehicle, perSecond int) error
	// updated is how many updates can be found by now.
	updated(ctx context.Context) (float64, error)
	// searchers returns n of them, each with a connection of its own.
	searchers(n int) ([]searcher, error)
	// cpu is what the server has used so far.
	cpu() (time.Duration, error)
	// memory is what the server keeps resident, in bytes.
	memory() int64
	// stop ends the server and removes what it kept.
	stop() error
}

// searcher searches on one connection, one search at a time.
type searcher interface {
	// search returns how many vehicles were found. It fails when they are not
	// in order.
	search(ctx context.Context, q query) (found int, err error)
}

// pace counts how many updates are due by now. One who falls behind by more than
// a tenth of a second leaves the rest out, so that a server that can't keep up
// does not get ever more of them.
type pace struct {
	began     time.Time
	perSecond float64
	sent      float64
}

func newPace(perSecond float64) *pace { return &pace{began: time.Now(), perSecond: perSecond} }

// due returns how many updates to send now, at most a number.
func (p *pace) due(most int) int {
	n := p.perSecond*time.Since(p.began).Seconds() - p.sent
	if behind := p.perSecond / 10; n > behind+1 {
		p.sent += n - behind
		n = behind
	}
	out := min(int(n), most)
	p.sent += float64(out)
	return out
}

// eachTick calls send whenever a period has passed, and at once again while it
// reports that more is due, until ctx is done or send fails. It begins after a part
// of the period, so that several need not all send at once.
func eachTick(ctx context.Context, period, begin time.Duration, send func() (more bool, err error)) error {
	if retry.Sleep(ctx, begin) != nil {
		return nil
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		more, err := send()
		if err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}
