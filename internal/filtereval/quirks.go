package filtereval

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/starling-fleet/starling/gpsfilter"
)

// radius95 is the radius in standard deviations that holds 95 % of a circular
// normal distribution.
const radius95 = 2.4477

// Quirk is an input that remakes what a real device sends, with its truth and
// what is right.
type Quirk struct {
	Stream
	// Right names the fault of the answers, or is nil.
	Right func(q *Quirk, live []gpsfilter.Estimate) error
}

// Check returns what is wrong with f's answers to q, or nil.
func (q *Quirk) Check(f Runner) error {
	if err := q.Right(q, f(q.Fixes)); err != nil {
		return fmt.Errorf("%s: %w", q.Name, err)
	}
	return nil
}

// rightValues are the checks of the inputs in the folder quirks, by the start of
// their names.
var rightValues = []struct {
	prefix string
	right  func(*Quirk, []gpsfilter.Estimate) error
}{
	{"heading_always", near(20, 25, 0.9, 1)},
	{"speed_zero", near(20, 25, 0.9, 1)},
	{"parked_last_speed", nearFix(300)},
	{"feed_polled", pathAndOff(1.3, 510)},
	{"start_accuracy", coarseStart(3, 50, 20, 50)},
	{"parked_cell", parked(200)},
	{"old_position", near(20, 50, 0, 0.9)},
}

// LoadQuirks reads the CSV inputs of a folder.
func LoadQuirks(dir string) ([]Quirk, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.truth.csv"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no *.truth.csv in %s: %w", dir, err)
	}
	var quirks []Quirk
	for _, p := range paths {
		s, err := loadFiles(strings.TrimSuffix(p, ".truth.csv")+".csv", p)
		if err != nil {
			return nil, err
		}
		q := Quirk{Stream: s}
		for _, r := range rightValues {
			if strings.HasPrefix(s.Name, r.prefix) {
				q.Right = r.right
			}
		}
		if q.Right == nil {
			return nil, fmt.Errorf("%s: its right values are not known", s.Name)
		}
		quirks = append(quirks, q)
	}
	return quirks, nil
}

// PrintQuirks writes what became of each and returns how many were right.
func PrintQuirks(w io.Writer, quirks []Quirk, f Runner) (right int) {
	for i := range quirks {
		if err := quirks[i].Check(f); err != nil {
			_, _ = fmt.Fprintf(w, "wrong: %v\n", err)
			continue
		}
		right++
	}
	_, _ = fmt.Fprintf(w, "quirks right: %d of %d\n", right, len(quirks))
	return right
}

// offsets returns each row's distance from the truth.
func (q *Quirk) offsets(live []gpsfilter.Estimate) []float64 {
	fr := newFrame(&q.Stream)
	ref := newReference(newTruthPath(&q.Stream, fr), q.Fixes)
	out := make([]float64, len(live))
	for i := range live {
		out[i] = math.NaN()
		if ref.known[i] {
			out[i] = fr.vec(live[i].LatDeg, live[i].LonDeg).sub(ref.at[i]).norm()
		}
	}
	return out
}

func stated95(e *gpsfilter.Estimate) float64 {
	return radius95 * math.Sqrt(max(e.VarEastM2, e.VarNorthM2))
}

// near asks that, from a row on, a share of the rows be within a distance of
// the truth, and the truth within the stated radius in another share.
func near(from int, withinM, covered, share float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		n, in, ok, worst := 0.0, 0.0, 0.0, 0.0
		for i, d := range q.offsets(live) {
			if i < from || math.IsNaN(d) {
				continue
			}
			n++
			worst = max(worst, d)
			if d <= withinM {
				ok++
			}
			if d <= stated95(&live[i]) {
				in++
			}
		}
		if ok < share*n {
			return fmt.Errorf("%.0f %% of the rows are within %v m of the truth, at most %.0f m off", 100*ok/n, withinM, worst)
		}
		if in < covered*n {
			return fmt.Errorf("the truth is inside the stated radius in %.0f %% of the rows", 100*in/n)
		}
		return nil
	}
}

// nearFix asks that no row be further than that from its fix.
func nearFix(withinM float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		fr := newFrame(&q.Stream)
		for i, f := range q.Fixes {
			if d := fr.vec(live[i].LatDeg, live[i].LonDeg).sub(fr.vec(f.LatDeg, f.LonDeg)).norm(); d > withinM {
				return fmt.Errorf("row %d is %.0f m from its fix", i, d)
			}
		}
		return nil
	}
}

// pathAndOff bounds the live and the display path to the truth's, and the
// distance from it.
func pathAndOff(ratio, withinM float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		fr := newFrame(&q.Stream)
		var path, display, truth float64
		tp := newTruthPath(&q.Stream, fr)
		for i := 1; i < len(tp.p); i++ {
			truth += tp.p[i].sub(tp.p[i-1]).norm()
		}
		for i := 1; i < len(live); i++ {
			path += fr.vec(live[i].LatDeg, live[i].LonDeg).sub(fr.vec(live[i-1].LatDeg, live[i-1].LonDeg)).norm()
			display += fr.vec(live[i].DisplayLatDeg, live[i].DisplayLonDeg).sub(fr.vec(live[i-1].DisplayLatDeg, live[i-1].DisplayLonDeg)).norm()
		}
		if path > ratio*truth || display > ratio*truth {
			return fmt.Errorf("paths of %.1f km (live) and %.1f km (display), truth %.1f km", path/1000, display/1000, truth/1000)
		}
		for i, d := range q.offsets(live) {
			if d > withinM {
				return fmt.Errorf("row %d is %.0f m off", i, d)
			}
		}
		return nil
	}
}

// coarseStart asks that the filter be near the truth from a good fix on, and
// sure of it some good fixes later. Good fixes state less than 100 m.
func coarseStart(fromGood int, withinM float64, sureAfter int, sureM float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		good := 0
		off := q.offsets(live)
		for i, f := range q.Fixes {
			if f.Has&gpsfilter.FieldAccuracy == 0 || f.AccuracyM < 100 {
				good++
			}
			if good >= fromGood && off[i] > withinM {
				return fmt.Errorf("row %d is %.0f m off", i, off[i])
			}
			if good > sureAfter && stated95(&live[i]) > sureM {
				return fmt.Errorf("row %d states a radius of %.0f m", i, stated95(&live[i]))
			}
		}
		return nil
	}
}

// parked asks that the vehicle be not moved by more than that, or be within the
// stated radius in 95 % of the rows.
func parked(withinM float64) func(*Quirk, []gpsfilter.Estimate) error {
	return func(q *Quirk, live []gpsfilter.Estimate) error {
		worst, in := 0.0, 0
		for i, d := range q.offsets(live) {
			worst = max(worst, d)
			if d <= stated95(&live[i]) {
				in++
			}
		}
		if share := float64(in) / float64(len(live)); worst > withinM && share < 0.95 {
			return fmt.Errorf("moved by %.0f m, the truth within the stated radius in %.0f %% of the rows", worst, 100*share)
		}
		return nil
	}
}
