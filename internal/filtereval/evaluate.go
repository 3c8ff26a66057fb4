package filtereval

import "github.com/starling-fleet/starling/gpsfilter"

// TruthSeeds is the number of faulted runs of each stream of the folder truth,
// as ever; Seeds that of all others.
const (
	TruthSeeds = 8
	Seeds      = 3
)

// PeriodsMS are the reporting periods at which clean streams are judged.
var PeriodsMS = [...]int64{200, 1000, 5000, 15000, 60000}

// minRows is the number of rows with truth below which a run is not judged.
const minRows = 15

// run is one list of fixes of one stream with everything needed to judge a
// filter by it.
type run struct {
	stream *Stream
	frame  frame
	fixes  []gpsfilter.Fix
	ref    *reference
	// raw and base are the scores of the fixes themselves and of the baseline.
	raw, base *Score
	// velocity reports whether the stream reports speed with heading.
	velocity bool
}

func newRun(s *Stream, fixes []gpsfilter.Fix) *run {
	fr := newFrame(s)
	r := &run{stream: s, frame: fr, fixes: fixes, ref: newReference(newTruthPath(s, fr), fixes), velocity: reportsVelocity(s.Fixes)}
	r.raw = scoreRun(fr, r.ref, fixes, Raw(fixes))
	r.base = scoreRun(fr, r.ref, fixes, Baseline(fixes))
	return r
}

func reportsVelocity(fixes []gpsfilter.Fix) bool {
	n := 0
	for _, f := range fixes {
		if f.Has&gpsfilter.FieldHeading != 0 {
			n++
		}
	}
	return 10*n > len(fixes)
}

// Suite is every run by which filters are judged. Building it costs seconds, a
// judgement less.
type Suite struct {
	// clean holds the clean runs by period, in the order of PeriodsMS.
	clean [len(PeriodsMS)][]*run
	// faulty holds the faulted runs at 1 Hz; today those of the computation
	// that earlier figures come from.
	faulty, today []*run
}

// NewSuite builds the runs. truthDir streams come first and number nTruth; they
// get today's faults as well.
func NewSuite(streams []Stream, nTruth int) *Suite {
	su := &Suite{}
	for i := range streams {
		s := &streams[i]
		for p, period := range PeriodsMS {
			if r := newRun(s, Every(s.Fixes, period)); r.raw.Rows >= minRows && (period >= 1000 || samplesAt(s.Fixes, period)) {
				su.clean[p] = append(su.clean[p], r)
			}
		}
		at1 := Every(s.Fixes, 1000)
		if i < nTruth {
			for n := range uint64(TruthSeeds) {
				fixes, _ := Inject(at1, AllFaults(), n+TruthSeeds*uint64(i))
				su.today = append(su.today, newRun(s, fixes))
			}
		}
		for n := range uint64(Seeds) {
			fixes, _ := Inject(at1, AllFaults(), 9_000_000+n+Seeds*uint64(i))
			su.faulty = append(su.faulty, newRun(s, fixes))
		}
	}
	return su
}

// samplesAt reports whether the device itself reports at least that often.
func samplesAt(fixes []gpsfilter.Fix, periodMS int64) bool {
	n := len(fixes)
	return n > 1 && (fixes[n-1].TimeMS-fixes[0].TimeMS)/int64(n-1) <= 2*periodMS
}

// judged is a run with a filter's score.
type judged struct {
	*run
	live *Score
}

func judge(runs []*run, f Runner) []judged {
	out := make([]judged, 0, len(runs))
	for _, r := range runs {
		out = append(out, judged{r, scoreRun(r.frame, r.ref, r.fixes, f(r.fixes))})
	}
	return out
}

// Result is what one filter did on a suite.
type Result struct {
	clean         [len(PeriodsMS)][]judged
	faulty, today []judged
}

// Judge runs f over everything.
func (su *Suite) Judge(f Runner) *Result {
	res := &Result{faulty: judge(su.faulty, f), today: judge(su.today, f)}
	for p := range PeriodsMS {
		res.clean[p] = judge(su.clean[p], f)
	}
	return res
}

// LoadSuite builds a suite from the folder of the drives that earlier figures
// come from, and from more folders.
func LoadSuite(truthDir string, more ...string) (*Suite, error) {
	streams, err := LoadDir(truthDir)
	if err != nil {
		return nil, err
	}
	n := len(streams)
	for _, dir := range more {
		s, err := LoadDir(dir)
		if err != nil {
			return nil, err
		}
		streams = append(streams, s...)
	}
	return NewSuite(streams, n), nil
}
