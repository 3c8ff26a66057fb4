package reprocess

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/starling-fleet/starling/history/row"
)

// Report is what differs between what was made and what there is.
type Report struct {
	// Reach is the append time of the oldest record that the log still has of any
	// partition: what was before it can't be stepped again. Shortened is true if the
	// warm-up or the range begins before it.
	Reach     time.Time `json:"reach"`
	Shortened bool      `json:"shortened"`
	// Fixes were stepped in the range, Compared of the rows that both sides have;
	// Same are equal in corrected position and verdict.
	Fixes    int64 `json:"fixes"`
	Compared int64 `json:"compared"`
	Same     int64 `json:"same"`
	// Verdicts have another verdict.
	Verdicts int64 `json:"other_verdict"`
	// OnlyNew and OnlyLive are rows that one side alone has: windows that closed
	// elsewhere at the end of the range, or fixes that came to count otherwise.
	OnlyNew  int64 `json:"only_new"`
	OnlyLive int64 `json:"only_live"`
	// Poison are records that could not be stepped.
	Poison int64 `json:"poison"`
	// P50M, P95M and MaxM are of the distance between the corrected positions, in
	// metres, over the rows that differ; the first two are those of a histogram whose
	// steps are 5 %.
	P50M float64 `json:"p50_m"`
	P95M float64 `json:"p95_m"`
	MaxM float64 `json:"max_m"`
	// Worst are the rows with the largest distance, the worst first.
	Worst []Difference `json:"worst"`

	o         *Options
	histogram map[int]int64
}

// Difference is one fix that differs.
type Difference struct {
	Vehicle     string    `json:"vehicle"`
	DeviceTime  time.Time `json:"device_time"`
	Kind        string    `json:"kind"`
	DistanceM   float64   `json:"distance_m"`
	LiveVerdict string    `json:"live_verdict"`
	NewVerdict  string    `json:"new_verdict"`
}

func newReport(o *Options) *Report { return &Report{o: o, histogram: map[int]int64{}} }

// reach notes the append time of a partition's oldest record.
func (r *Report) reach(ms int64) {
	if at := time.UnixMilli(ms).UTC(); r.Reach.IsZero() || at.Before(r.Reach) {
		r.Reach = at
	}
	if time.UnixMilli(ms).After(r.o.From.Add(-r.o.WarmUp)) {
		r.Shortened = true
	}
}

// key is a row of either side.
type key struct {
	vehicle string
	timeMS  int64
	kind    row.Kind
}

// pending is a row whose other side is missing.
type pending struct {
	fix  row.Fix
	live bool
}

// compare compares rows of a record with those that `tracks` has of it. Windows may
// close at another record on each side, so that a row may wait for its other side.
func (p *partition) compare(made, live []row.Fix, appendMS int64) {
	for i := range made {
		p.meet(made[i], false, appendMS)
	}
	for i := range live {
		p.meet(live[i], true, appendMS)
	}
}

func (p *partition) meet(f row.Fix, live bool, appendMS int64) {
	if !f.Kind.Stands() {
		return
	}
	since, ok := p.known[f.Vehicle]
	if !ok || since > appendMS-p.o.WarmUp.Milliseconds() {
		return // it has not been known for long enough
	}
	k := key{f.Vehicle, f.DeviceTimeMS, f.Kind}
	other, ok := p.pending[k]
	if !ok || other.live == live {
		p.pending[k] = pending{f, live}
		return
	}
	delete(p.pending, k)
	if live {
		p.report.add(f, other.fix)
	} else {
		p.report.add(other.fix, f)
	}
}

// leftOver counts what has no other side.
func (r *Report) leftOver(all map[key]pending) {
	for _, p := range all {
		if p.live {
			r.OnlyLive++
		} else {
			r.OnlyNew++
		}
	}
}

func (r *Report) add(live, made row.Fix) {
	r.Compared++
	if live.Verdict != made.Verdict {
		r.Verdicts++
	}
	if live.Corrected == made.Corrected && live.Verdict == made.Verdict {
		r.Same++
		return
	}
	d := distanceM(live.Corrected, made.Corrected)
	r.MaxM = max(r.MaxM, d)
	r.histogram[bucket(d)]++
	if len(r.Worst) == r.o.Worst && (r.o.Worst == 0 || d <= r.Worst[len(r.Worst)-1].DistanceM) {
		return
	}
	at, _ := slices.BinarySearchFunc(r.Worst, d, func(w Difference, d float64) int { return cmp.Compare(d, w.DistanceM) })
	r.Worst = slices.Insert(r.Worst, at, Difference{
		live.Vehicle, time.UnixMilli(live.DeviceTimeMS).UTC(), live.Kind.String(), d, live.Verdict.String(), made.Verdict.String(),
	})
	r.Worst = r.Worst[:min(len(r.Worst), r.o.Worst)]
}

// The histogram's steps are 5 % from a centimetre on.
const firstM, stepOf = 0.01, 1.05

func bucket(d float64) int {
	if d < firstM {
		return 0
	}
	return 1 + int(math.Log(d/firstM)/math.Log(stepOf))
}

// finish computes the percentiles.
func (r *Report) finish() {
	total := int64(0)
	var buckets []int
	for b, n := range r.histogram {
		total += n
		buckets = append(buckets, b)
	}
	slices.Sort(buckets)
	percentile := func(share float64) float64 {
		seen := int64(0)
		for _, b := range buckets {
			if seen += r.histogram[b]; float64(seen) > share*float64(total) {
				return min(firstM*math.Pow(stepOf, float64(b)), r.MaxM)
			}
		}
		return 0
	}
	r.P50M, r.P95M = percentile(0.5), percentile(0.95)
}

// distanceM is the distance of two near positions in metres.
func distanceM(a, b row.Position) float64 {
	const metresPerE7 = 6_371_008.8 * math.Pi / 180 / 1e7
	lat := float64(a.LatE7) - float64(b.LatE7)
	lon := (float64(a.LonE7) - float64(b.LonE7)) * math.Cos(float64(a.LatE7)/1e7*math.Pi/180)
	return math.Hypot(lat, lon) * metresPerE7
}
