package replay

import (
	"cmp"
	"slices"
	"time"
)

// schedule is in which order and when rows are sent, and which device time
// they carry.
type schedule struct {
	// order holds the indices of the rows; nil means as they stand.
	order []int32
	// playMS is when each row is due on the time line of the recording, moved
	// so that it ends at endMS. A row is never due before the vehicle's row
	// before it. Nil when playing flat out.
	playMS []int64
	// shiftMS is added to the device times of each file.
	shiftMS []int64
	endMS   int64
	speedup float64
}

// newSchedule plans a playback that starts at start.
func newSchedule(rec *recording, start time.Time, speedup float64, asRecorded bool) schedule {
	s := schedule{endMS: start.UnixMilli(), speedup: speedup}
	if speedup > 0 {
		var span int64
		for i := range rec.files {
			span = max(span, rec.lastMS[i]-rec.firstMS[i])
		}
		s.endMS += int64(float64(span) / speedup)
	}
	s.shiftMS = make([]int64, len(rec.files))
	if !asRecorded {
		for i := range s.shiftMS {
			s.shiftMS[i] = s.endMS - rec.lastMS[i]
		}
	}
	if speedup > 0 {
		s.plan(rec)
	}
	return s
}

// plan orders the rows of all vehicles by when they are due.
func (s *schedule) plan(rec *recording) {
	latest := make([]int64, len(rec.vehicles))
	s.playMS = make([]int64, len(rec.rows))
	s.order = make([]int32, len(rec.rows))
	for i := range rec.rows {
		r := &rec.rows[i]
		latest[r.vehicle] = max(latest[r.vehicle], r.unixMS+s.endMS-rec.lastMS[r.file])
		s.playMS[i] = latest[r.vehicle]
		s.order[i] = int32(i)
	}
	slices.SortStableFunc(s.order, func(a, b int32) int { return cmp.Compare(s.playMS[a], s.playMS[b]) })
}

// at returns the i-th row to send and when.
func (s *schedule) at(i int) (rowIndex int, due time.Time) {
	if s.order == nil {
		return i, time.Time{}
	}
	rowIndex = int(s.order[i])
	before := float64(s.endMS-s.playMS[rowIndex]) / s.speedup
	return rowIndex, time.UnixMilli(s.endMS - int64(before))
}
