package follow

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// agreement holds what the trackers publish as dispatchable to the matcher's own
// dispatch_max_age. The trackers' stands in the log, and a matcher can't read
// it; but each free vehicle that is published shows on which side of it the age
// of its newest fix lies. All but disagreements are for one goroutine.
type agreement struct {
	logger        *slog.Logger
	maxAgeMS      int64
	warnedMS      int64 // time of the last warning, 0 for none
	disagreements atomic.Int64
}

// agreementAlarm is the least time between two warnings.
const agreementAlarm = time.Minute

// note takes in a view as of its partition's stream time; nowMS paces warnings.
func (a *agreement) note(v *wire.View, streamMS, nowMS int64) {
	if v.Availability != starlingv1.Availability_AVAILABILITY_FREE || v.DerivedAvailability != 0 || v.Conflicting || v.DeviceTimeMS == 0 {
		return
	}
	ageMS := streamMS - (v.DeviceTimeMS - v.DeviceClockAheadMS)
	if ageMS < 0 || v.Dispatchable == (ageMS <= a.maxAgeMS) {
		return
	}
	a.disagreements.Add(1)
	if a.warnedMS != 0 && nowMS >= a.warnedMS && nowMS-a.warnedMS < agreementAlarm.Milliseconds() {
		return
	}
	a.warnedMS = nowMS
	a.logger.Warn("the trackers' dispatch_max_age, which stands in the log, is not matcher.dispatch_max_age: set both alike, and the log's by starling topics activate",
		"age", time.Duration(ageMS)*time.Millisecond, "published_dispatchable", v.Dispatchable, "matcher_dispatch_max_age", time.Duration(a.maxAgeMS)*time.Millisecond)
}
