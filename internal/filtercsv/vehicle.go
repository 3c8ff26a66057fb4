package filtercsv

import (
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

// vehicle holds one vehicle's filter and its reorder window.
type vehicle struct {
	state gpsfilter.State
	live  gpsfilter.Estimate
	// window holds the fixes within the window behind the newest, by time,
	// each with the state before it.
	window []entry
}

type entry struct {
	fix    gpsfilter.Fix
	before gpsfilter.State
}

// take steps one fix and returns its verdict and normalised distance.
func (v *vehicle) take(f *gpsfilter.Filter, fix gpsfilter.Fix, windowMS int64) (string, float64) {
	newest := v.state.TimeMS()
	if len(v.window) > 0 && fix.TimeMS < newest-windowMS {
		return VerdictLate, 0
	}
	at := sort.Search(len(v.window), func(i int) bool { return v.window[i].fix.TimeMS >= fix.TimeMS })
	if at < len(v.window) && v.window[at].fix.TimeMS == fix.TimeMS {
		if v.window[at].fix == fix {
			return VerdictDuplicate, 0
		}
		return VerdictConflict, 0
	}
	v.window = append(v.window, entry{})
	copy(v.window[at+1:], v.window[at:])
	v.window[at].fix = fix
	if at+1 < len(v.window) {
		v.state = v.window[at+1].before
	}
	var judged gpsfilter.Estimate
	for i := at; i < len(v.window); i++ {
		v.window[i].before = v.state
		v.live = f.Step(&v.state, v.window[i].fix)
		if i == at {
			judged = v.live
		}
	}
	v.trim(v.state.TimeMS() - windowMS)
	return judged.Verdict.String(), judged.NormalisedDistance
}

// trim drops the fixes before fromMS.
func (v *vehicle) trim(fromMS int64) {
	drop := sort.Search(len(v.window), func(i int) bool { return v.window[i].fix.TimeMS >= fromMS })
	if drop > 0 {
		v.window = v.window[:copy(v.window, v.window[drop:])]
	}
}
