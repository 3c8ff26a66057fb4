package drill

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
)

// mostHeld is how long an honest vehicle's position may be another than that of
// its newest report: 5 s by the rules of the step, and what a report takes
// through busy processes.
const mostHeld = 8 * time.Second

// clockPlan is how the log's clock goes wrong, and for how long. While quiet, no
// device stamps ahead: with stream time wrong nobody can see that it does.
var clockPlan = []struct {
	offset, lasts time.Duration
	quiet         bool
}{
	{0, 8 * time.Second, false},
	{8 * 24 * time.Hour, 6 * time.Second, true}, // a step that is taken back
	{0, 4 * time.Second, false},
	{-3 * time.Hour, 6 * time.Second, true}, // the same, back
	{0, 4 * time.Second, false},
	{8 * 24 * time.Hour, 300 * time.Millisecond, true}, // a few wrong stamps
	{0, 4 * time.Second, false},
	{-3 * time.Hour, 45 * time.Second, true}, // believed, and believed again
	{0, 45 * time.Second, true},
	{0, 10 * time.Second, false},
	{20 * time.Minute, 45 * time.Second, true}, // the same, ahead
	{0, 45 * time.Second, true},
	{0, 10 * time.Second, false},
}

// quietBefore is how long before the log's clock goes wrong devices stop to
// stamp ahead, so that nothing of it is still on its way.
const quietBefore = 1500 * time.Millisecond

// jumpClocks goes through as much of the plan as the drill's duration allows
// for, and sets the clock right in the end.
func (d *drill) jumpClocks(ctx context.Context, f *fleet) error {
	began := time.Now()
	for i, step := range clockPlan {
		if time.Since(began)+step.lasts > d.opts.Duration {
			break
		}
		if err := d.opts.LogClock(step.offset); err != nil {
			return err
		}
		d.logf("the log's clock is off by %v for %v", step.offset, step.lasts)
		if step.quiet {
			sleep(ctx, step.lasts)
			continue
		}
		f.stampsAhead.Store(true)
		sleep(ctx, step.lasts-quietBefore)
		if f.stampsAhead.Store(false); i < len(clockPlan)-1 {
			sleep(ctx, quietBefore)
		}
	}
	return d.opts.LogClock(0)
}

// How often a vehicle whose clock is wrong shows it.
const (
	shareStray    = 0.05 // a report has a fix stamped ahead
	shareIntruded = 0.10 // a report is of a second phone, stamped ahead
)

// strayAhead and intruderAhead are how far those are stamped ahead.
const (
	strayAhead    = 50 * time.Second
	intruderAhead = 110 * time.Second
)

// wrongClock is what is off about a vehicle's devices.
type wrongClock struct {
	// ahead is what its clock is off by all the time.
	ahead time.Duration
	// stray: now and then a fix is stamped ahead.
	stray bool
	// intruder is the session of a second phone whose clock is ahead, 0 for none.
	intruder         uint64
	intruderSequence int64
	strays           map[int64]bool // device times of fixes stamped ahead
	// may reports whether anything may be stamped ahead just now; nil for never.
	may *atomic.Bool
}

// shows reports whether the vehicle has a report in which its clock's fault shows.
func (v *vehicle) shows(share float64) bool {
	return v.clock.may != nil && v.clock.may.Load() && v.sequence > 1 && v.chance(share)
}

// wrongClockOf leaves the probed vehicles' own clocks right: they have strays
// and second phones. Of the others a part is steadily ahead or behind.
func wrongClockOf(number int) wrongClock {
	c := wrongClock{strays: map[int64]bool{}}
	switch number % 5 {
	case 0:
		c.stray = true
	case 1:
		c.intruder = uint64(number)<<8 | 1
	case 2:
		if number >= probed {
			c.ahead = 20 * time.Second
		}
	case 3:
		if number >= probed {
			c.ahead = -40 * time.Second
		}
	}
	return c
}

// isOffAllTheTime reports whether the clock of a vehicle's device is steadily wrong.
// When the log's is wrong as well, the step may follow such a one anew.
func isOffAllTheTime(id string) bool {
	var number int
	_, err := fmt.Sscanf(id, "drill-%d", &number)
	return err == nil && wrongClockOf(number).ahead != 0
}

// strayFix is stamped ahead, by an odd time that no other fix has.
func (v *vehicle) strayFix() *starlingv1.Fix {
	return v.stampAhead(strayAhead)
}

func (v *vehicle) stampAhead(ahead time.Duration) *starlingv1.Fix {
	f := v.fixAt(v.started.Add(time.Duration(v.made)*v.interval+ahead).UnixMilli() - 2)
	v.clock.strays[f.DeviceTimeMs] = true
	return f
}

func (v *vehicle) isStray(f *starlingv1.Fix) bool { return v.clock.strays[f.DeviceTimeMs] }

// intrude is a report of the second phone.
func (v *vehicle) intrude() *entry {
	v.clock.intruderSequence++
	m := &starlingv1.Report{
		VehicleId: v.id, SessionId: v.clock.intruder, Sequence: v.clock.intruderSequence,
		Fixes: []*starlingv1.Fix{v.stampAhead(intruderAhead)},
	}
	v.made += int64(v.perReport)
	return v.enter(m, []starlingv1.RefusalReason{starlingv1.RefusalReason_REFUSAL_REASON_UNSPECIFIED})
}
