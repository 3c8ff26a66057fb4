package step

import (
	"slices"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

// A fix that comes out of order changes what the filter makes of every fix after
// it. So that the filter need not go through those before it again, a vehicle
// that sends such fixes keeps the filter's state behind some fixes of its window.
//
// Savepoints are a cache: they stand in no checkpoint, and without them the
// filter goes through the whole window and comes to the same bits. A partition
// keeps them for at most maxSavepointVehicles vehicles, maxSavepoints each and
// less than half a KiB apiece: 3.5 MiB at most.
const (
	maxSavepoints        = 16
	maxSavepointVehicles = 512
	// minSavepointFixes is how many fixes there are from one savepoint to the next
	// in a small window; in a large one the savepoints share it evenly.
	minSavepointFixes = 8
)

// savepoint is the filter's state after the open fix of a device time.
type savepoint struct {
	timeMS int64
	state  gpsfilter.State
}

// savepoints are those of one vehicle, by time.
type savepoints struct {
	vehicle *vehicle
	list    []savepoint
	// since is how many fixes the filter has gone through since the last one.
	since int
}

// keepSavepoints gives v savepoints, if need be those of the vehicle that has had
// them for longest.
func (p *Partition) keepSavepoints(v *vehicle) {
	var s *savepoints
	if len(p.savepoints) < maxSavepointVehicles {
		s = &savepoints{}
		p.savepoints = append(p.savepoints, s)
	} else {
		s = p.savepoints[p.nextSavepoints]
		if s.vehicle.savepoints == s {
			s.vehicle.savepoints = nil
		}
		p.nextSavepoints = (p.nextSavepoints + 1) % maxSavepointVehicles
	}
	*s = savepoints{vehicle: v, list: s.list[:0]}
	v.savepoints = s
}

// rewind drops what a fix of the device time makes untrue and returns the latest
// savepoint before it, or nil if there is none.
func (s *savepoints) rewind(deviceTimeMS int64) *savepoint {
	if s == nil {
		return nil
	}
	n := sort.Search(len(s.list), func(i int) bool { return s.list[i].timeMS >= deviceTimeMS })
	s.list, s.since = s.list[:n], 0
	if n == 0 {
		return nil
	}
	return &s.list[n-1]
}

// passed adds a savepoint after the fix that live was just stepped through, if
// the last one is far enough behind it. open is the size of the window.
func (s *savepoints) passed(deviceTimeMS int64, live *gpsfilter.State, open int) {
	if s == nil {
		return
	}
	if s.since++; s.since < max(minSavepointFixes, (open+maxSavepoints-1)/maxSavepoints) {
		return
	}
	if len(s.list) == maxSavepoints {
		s.list = slices.Delete(s.list, 0, 1)
	}
	s.list = append(s.list, savepoint{deviceTimeMS, *live})
	s.since = 0
}

// closed drops the savepoints that are not after the newest closed fix.
func (s *savepoints) closed(deviceTimeMS int64) {
	if s == nil {
		return
	}
	n := sort.Search(len(s.list), func(i int) bool { return s.list[i].timeMS > deviceTimeMS })
	s.list = slices.Delete(s.list, 0, n)
}
