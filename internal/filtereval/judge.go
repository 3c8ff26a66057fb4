package filtereval

import "github.com/starling-fleet/starling/gpsfilter"

// Outcome is what a filter did on one stream, clean and at 1 Hz.
type Outcome struct {
	Name, Kind, Drive string
	// P50 and P95 are quantiles of the error over those of the fixes
	// themselves, Length the live path's length over the true one's.
	P50, P95, Length float64
	// StandingS is how long the truth stood, DriftM the live path meanwhile.
	StandingS, DriftM float64
}

// Judge judges many filters on the same streams. It is not safe for concurrent
// use.
type Judge struct{ streams []judged }

type judged struct {
	*Stream
	frame frame
	fixes []gpsfilter.Fix
	ref   *reference
	raw   *Score
}

// NewJudge returns a judge by the clean streams at 1 Hz.
func NewJudge(streams []Stream) *Judge {
	j := &Judge{}
	for i := range streams {
		s := &streams[i]
		fr, fixes := newFrame(s), Every(s.Fixes, 1000)
		ref := newReference(newTruthPath(s, fr), fixes)
		j.streams = append(j.streams, judged{s, fr, fixes, ref, scoreRun(fr, ref, fixes, nil, Raw(fixes))})
	}
	return j
}

// Clean returns what f does on each stream.
func (j *Judge) Clean(f Runner) []Outcome {
	out := make([]Outcome, 0, len(j.streams))
	for _, s := range j.streams {
		score := scoreRun(s.frame, s.ref, s.fixes, nil, f(s.fixes))
		r := run{raw: s.raw, starling: score}
		out = append(out, Outcome{
			Name: s.Name, Kind: s.Kind, Drive: s.Drive,
			P50: p50raw(&r), P95: p95raw(&r), Length: length(&r),
			StandingS: score.StandingS, DriftM: score.DriftM,
		})
	}
	return out
}
