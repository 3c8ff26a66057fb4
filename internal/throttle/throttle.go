// Package throttle keeps log lines that could come in a hot loop to one in a
// while.
package throttle

import (
	"sync"
	"time"
)

// Throttle lets one event in an interval through and counts the others. Its zero
// value lets everything through. It is safe for concurrent use.
type Throttle struct {
	// Interval is the least time between two events that pass.
	Interval time.Duration

	mu         sync.Mutex
	last       time.Time
	suppressed int64
}

// Pass reports whether an event passes, and how many have not since the last that
// did.
func (t *Throttle) Pass() (suppressed int64, ok bool) { return t.PassAt(time.Now()) }

// PassAt is Pass by another clock. One that has been set back lets an event
// through.
func (t *Throttle) PassAt(now time.Time) (suppressed int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since := now.Sub(t.last); !t.last.IsZero() && since >= 0 && since < t.Interval {
		t.suppressed++
		return 0, false
	}
	t.last = now
	suppressed, t.suppressed = t.suppressed, 0
	return suppressed, true
}
