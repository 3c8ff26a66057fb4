package ingest

import "time"

// pacer holds a stream to a rate with the virtual scheduling form of the
// generic cell rate algorithm (ITU-T Recommendation I.371): due is when the
// work done so far would be finished at exactly the rate, and work may run a
// second ahead of it.
type pacer struct {
	perSecond float64       // 0 means no limit
	due       time.Duration // by the monotonic clock
}

// wait returns how long to wait before units of work may be done at now, by the
// monotonic clock, and books them.
func (p *pacer) wait(units int, now time.Duration) time.Duration {
	if p.perSecond == 0 || units == 0 {
		return 0
	}
	p.due = max(p.due, now)
	wait := p.due - now - time.Second
	p.due += time.Duration(float64(units) / p.perSecond * float64(time.Second))
	return max(wait, 0)
}
