package locallog

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// skewBound is the difference between the machine's wall clock and the log's
// clock above which it is reported.
const skewBound = 10 * time.Second

// skewInterval is the least time between two reports.
const skewInterval = time.Minute

// Stamps that are further ahead of those before them than stampJump (or than two
// segments' age, if that is more) have jumped; they are believed when they have
// gone on for stampStay.
const (
	stampJump = time.Hour
	stampStay = 24 * time.Hour
)

// logClock stamps groups. It reads the wall clock once, when the log is opened,
// and goes on by the machine's monotonic clock: a wall clock that is set while
// the log is open does not move it. It never goes below the newest stamp in the
// log; when that is ahead of the wall clock it goes on from there.
type logClock struct {
	env    environment
	began  time.Duration // elapsed at the start
	baseMS int64         // stamp at the start

	warned  time.Duration // elapsed at the last report; the caller's
	skewing atomic.Bool
}

// start anchors the clock.
func (c *logClock) start(env environment, newestMS int64) {
	c.env, c.began = env, env.elapsed()
	c.baseMS = max(env.now().UnixMilli(), newestMS)
	c.warned = c.began - skewInterval
}

// nowMS is the log's time, in ms since the Unix epoch.
func (c *logClock) nowMS() int64 {
	return c.baseMS + max(0, (c.env.elapsed()-c.began).Milliseconds())
}

// skew is how far the wall clock is ahead of the log's clock; negative when it
// is behind.
func (c *logClock) skew() time.Duration {
	return time.Duration(c.env.now().UnixMilli()-c.nowMS()) * time.Millisecond
}

// watch reports a skewed clock, at most once in a while. One goroutine calls it.
func (c *logClock) watch(logger *slog.Logger) {
	skew, elapsed := c.skew(), c.env.elapsed()
	skewed := skew.Abs() > skewBound
	switch {
	case skewed && elapsed-c.warned >= skewInterval:
		c.warned = elapsed
		logger.Warn("the wall clock differs from the log's clock, which goes on by the monotonic clock from where the log was opened, or from the newest stamp in it: records are stamped by the log's clock", "wall_ahead_by", skew)
	case !skewed && c.skewing.Load():
		logger.Info("the wall clock agrees with the log's clock again")
	}
	c.skewing.Store(skewed)
}

// settledMS returns the time that retention goes by, of the log's own stamps in
// their order: the newest, unless the stamps have jumped ahead by more than jump
// and have not yet stayed there for stay of their own time. A jump may be a wall
// clock that was wrong when the log was opened; what is deleted does not come
// back.
func settledMS(stamps []int64, jump, stay time.Duration) int64 {
	if len(stamps) == 0 {
		return 0
	}
	settled, newest := stamps[0], stamps[0]
	jumped, since := false, int64(0)
	for _, t := range stamps[1:] {
		if t < newest {
			continue
		}
		switch {
		case t-newest > jump.Milliseconds(): // also from within a jump
			jumped, since = true, t
		case jumped && t-since >= stay.Milliseconds():
			jumped, settled = false, t
		case !jumped:
			settled = t
		}
		newest = t
	}
	return settled
}
