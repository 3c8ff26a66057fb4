package replay

import (
	"slices"
	"sort"
)

// closeGaps moves rows towards the end of their file wherever nobody in the
// file reported for longer than maxGapMS, so that just this much is left. All
// other intervals are kept. It returns the most that a file became shorter.
func (rec *recording) closeGaps(maxGapMS int64) (shortenedMS int64) {
	times := make([][]int64, len(rec.files))
	for i := range rec.rows {
		f := rec.rows[i].file
		times[f] = append(times[f], rec.rows[i].unixMS)
	}
	gaps := make([][]gap, len(rec.files))
	for f := range times {
		slices.Sort(times[f])
		gaps[f] = findGaps(times[f], maxGapMS)
		if n := len(gaps[f]); n > 0 {
			rec.firstMS[f] += gaps[f][0].shiftMS
			shortenedMS = max(shortenedMS, gaps[f][0].shiftMS)
		}
	}
	for i := range rec.rows {
		r := &rec.rows[i]
		r.unixMS += shiftOf(gaps[r.file], r.unixMS)
	}
	return shortenedMS
}

// gap moves the rows before endMS by shiftMS.
type gap struct{ endMS, shiftMS int64 }

// findGaps returns the gaps of sorted times, oldest first.
func findGaps(times []int64, maxGapMS int64) []gap {
	var found []gap
	var shift int64
	for i := len(times) - 1; i > 0; i-- {
		if silent := times[i] - times[i-1]; silent > maxGapMS {
			shift += silent - maxGapMS
			found = append(found, gap{times[i], shift})
		}
	}
	slices.Reverse(found)
	return found
}

// shiftOf is by how much a time is moved: what the gaps behind it add up to.
func shiftOf(gaps []gap, ms int64) int64 {
	i := sort.Search(len(gaps), func(i int) bool { return ms < gaps[i].endMS })
	if i == len(gaps) {
		return 0
	}
	return gaps[i].shiftMS
}
