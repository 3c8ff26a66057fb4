package ingest

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// evidenceAge is how long, by the monotonic clock, what was learned of
	// other clocks counts.
	evidenceAge = 10 * time.Minute
	// maxStamps is how many of the log's latest stamps are weighed; the median
	// counts, so that one broker's clock does not decide.
	maxStamps = 9
	// deviceSlots bounds how many vehicles' clocks are remembered.
	deviceSlots = 512
	// deviceProbes is how many slots a vehicle may use.
	deviceProbes = 4
	// fewVehicles is how many vehicles at least must agree with one another to
	// contradict the server's clock or to confirm it.
	fewVehicles = 2
	// noteInterval is the least time between two notes of one vehicle's clock.
	noteInterval = time.Second
)

// clocks weighs the server's wall clock against the append times stamped by the
// log and against the clocks of the vehicles' devices. All evidence is kept as
// an offset from the monotonic clock, so a step of the wall clock shows at
// once. It is safe for concurrent use.
type clocks struct {
	wall      func() time.Time
	mono      func() time.Duration
	maxAhead  int64 // ms
	maxAge    int64 // ms
	tolerance int64 // ms

	devices [deviceSlots]deviceClock

	mu     sync.Mutex
	stamps []evidence // oldest first, at most maxStamps
	// logOffset is the median of stamps, valid until logUntil; zero means none.
	logOffset, logUntil atomic.Int64
}

// evidence is another clock's time, as an offset from the monotonic clock.
type evidence struct {
	offsetMS int64
	atMS     int64 // monotonic
}

// deviceClock is one vehicle's evidence. Its fields are written one by one:
// what a reader gets mixed up is evidence all the same.
type deviceClock struct {
	hash, offsetMS, atMS atomic.Int64
}

func newClocks(v ValidationConfig, wall func() time.Time, mono func() time.Duration) *clocks {
	return &clocks{
		wall: wall, mono: mono,
		maxAhead: v.MaxAhead.Milliseconds(), maxAge: v.MaxAge.Milliseconds(), tolerance: v.ClockTolerance.Milliseconds(),
	}
}

// monoMS is the monotonic clock in milliseconds, never zero.
func (c *clocks) monoMS() int64 { return monoMS(c.mono()) }

func monoMS(mono time.Duration) int64 { return mono.Milliseconds() + 1 }

// moment is one reading of both clocks, for everything that is asked of a report.
type moment struct {
	wall time.Time
	mono time.Duration
}

func (s *Server) now() moment { return moment{s.clock(), s.mono()} }

// stamped notes that the log stamped a record with stampMS at the monotonic
// time atMS. It returns whether that differs from what the log's stamps make its
// time by more than the tolerance.
func (c *clocks) stamped(stampMS, atMS int64) (surprise bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamps = slices.DeleteFunc(c.stamps, func(e evidence) bool { return atMS-e.atMS > evidenceAge.Milliseconds() })
	c.stamps = append(c.stamps, evidence{stampMS - atMS, atMS})
	if len(c.stamps) > maxStamps {
		c.stamps = c.stamps[1:]
	}
	offsets := make([]int64, len(c.stamps))
	for i, e := range c.stamps {
		offsets[i] = e.offsetMS
	}
	slices.Sort(offsets)
	median := offsets[len(offsets)/2]
	c.logOffset.Store(median)
	c.logUntil.Store(atMS + evidenceAge.Milliseconds())
	return abs(stampMS-atMS-median) > c.tolerance
}

// log returns the log's time as an offset from the monotonic clock, and false
// when no stamp was seen for evidenceAge.
func (c *clocks) log(monoMS int64) (offsetMS int64, known bool) {
	return c.logOffset.Load(), monoMS < c.logUntil.Load()
}

// bounds returns the latest and the earliest device time that the rules take at
// a moment. Within the tolerance, the log's clock is as good as
// the server's: a fix is refused when it breaks the rule by both.
func (c *clocks) bounds(now moment) (latestMS, earliestMS int64) {
	nowMS, monoMS := now.wall.UnixMilli(), monoMS(now.mono)
	latest, earliest := nowMS, nowMS
	if offset, known := c.log(monoMS); known {
		if log := monoMS + offset; abs(log-nowMS) <= c.tolerance {
			latest, earliest = max(latest, log), min(earliest, log)
		}
	}
	return latest + c.maxAhead, earliest - c.maxAge
}

// reported notes the device time of a vehicle's report.
func (c *clocks) reported(vehicleID string, deviceMS int64, now moment) {
	monoMS := monoMS(now.mono)
	hash := hashOf(vehicleID)
	var slot *deviceClock
	for i := range uint64(deviceProbes) {
		s := &c.devices[(uint64(hash)+i)%deviceSlots]
		if s.hash.Load() == hash {
			slot = s
			break
		}
		if slot == nil || s.atMS.Load() < slot.atMS.Load() {
			slot = s
		}
	}
	offset := deviceMS - monoMS
	if slot.hash.Load() == hash && monoMS-slot.atMS.Load() < noteInterval.Milliseconds() && abs(offset-slot.offsetMS.Load()) <= c.maxAhead {
		return
	}
	slot.hash.Store(hash)
	slot.offsetMS.Store(offset)
	slot.atMS.Store(monoMS)
}

// hashOf is FNV-1a, never zero.
func hashOf(id string) int64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return int64(max(h, 1))
}

// verdict is what the evidence shows of the server's clock.
type verdict struct {
	// byLog and byDevices are true when the log's stamps, or most vehicles' devices,
	// contradict it.
	byLog, byDevices bool
	// unconfirmed is true when nothing is known of the log's clock, and that more
	// vehicles share a clock which is further ahead than the bound than confirm
	// the server's: too few to doubt it, enough to keep back a refusal.
	unconfirmed bool
	// logSkewMS and deviceSkewMS are by how much the log's clock, and the one
	// that most vehicles share, are ahead of the server's; zero if unknown.
	logSkewMS, deviceSkewMS int64
}

// inDoubt returns whether the server's clock is contradicted.
func (v verdict) inDoubt() bool { return v.byLog || v.byDevices }

// keepsBack returns whether a refusal for a device time that is too far ahead, or
// too old, may be the server's own fault.
func (v verdict) keepsBack(ahead bool) bool { return v.inDoubt() || ahead && v.unconfirmed }

// judge weighs the evidence.
func (c *clocks) judge() verdict {
	monoMS, wallMS := c.monoMS(), c.wall().UnixMilli()
	own := wallMS - monoMS
	inLine := 0
	var ahead, behind []int64
	near := make([]int64, 0, deviceSlots)
	for i := range c.devices {
		d := &c.devices[i]
		at := d.atMS.Load()
		if at == 0 || monoMS-at > evidenceAge.Milliseconds() {
			continue
		}
		switch off := d.offsetMS.Load() - own; {
		case abs(off) <= c.maxAhead:
			inLine++
			near = append(near, off)
		case off > 0:
			ahead = append(ahead, off)
		case off < -c.maxAge:
			behind = append(behind, off)
		}
	}
	aheadCount, aheadMS := cluster(ahead, c.maxAhead)
	behindCount, behindMS := cluster(behind, c.maxAhead)
	var v verdict
	switch {
	case aheadCount > inLine && aheadCount >= behindCount:
		v.byDevices, v.deviceSkewMS = aheadCount >= fewVehicles, aheadMS
	case behindCount > inLine:
		v.byDevices, v.deviceSkewMS = behindCount >= fewVehicles, behindMS
	case inLine > 0:
		_, v.deviceSkewMS = cluster(near, 2*c.maxAhead)
	}
	offset, known := c.log(monoMS)
	v.unconfirmed = !known && aheadCount > inLine
	if known {
		v.logSkewMS = offset - own
		// Where most vehicles agree with the server, it is the log's clock that
		// is wrong.
		confirmed := inLine >= fewVehicles && inLine >= max(aheadCount, behindCount)
		v.byLog = abs(v.logSkewMS) > c.tolerance && !confirmed
	}
	return v
}

// cluster returns how many of the offsets at most lie within width of one
// another, and the middle one of these. It sorts them.
func cluster(offsets []int64, width int64) (count int, middle int64) {
	slices.SortFunc(offsets, cmp.Compare[int64])
	first := 0
	for last := range offsets {
		for offsets[last]-offsets[first] > width {
			first++
		}
		if n := last - first + 1; n > count {
			count, middle = n, offsets[first+n/2]
		}
	}
	return count, middle
}

func abs(x int64) int64 { return max(x, -x) }
