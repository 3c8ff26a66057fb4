package filtereval

import (
	"math"
	"sort"

	"github.com/starling-fleet/starling/gpsfilter"
)

const metresPerDeg = 6371008.8 * math.Pi / 180

// vec is metres east and north of a drive's first truth point.
type vec struct{ e, n float64 }

func (a vec) sub(b vec) vec        { return vec{a.e - b.e, a.n - b.n} }
func (a vec) add(b vec) vec        { return vec{a.e + b.e, a.n + b.n} }
func (a vec) scale(f float64) vec  { return vec{a.e * f, a.n * f} }
func (a vec) norm() float64        { return math.Hypot(a.e, a.n) }
func lerp(a, b vec, w float64) vec { return vec{a.e + w*(b.e-a.e), a.n + w*(b.n-a.n)} }
func courseDeg(v vec) float64      { return math.Mod(math.Atan2(v.e, v.n)*180/math.Pi+360, 360) }
func angleBetween(a, b float64) float64 {
	d := math.Abs(math.Mod(a-b+540, 360) - 180)
	return d
}

// frame turns degrees into metres about a drive's first truth point.
type frame struct{ lat0, lon0, cosLat float64 }

func newFrame(s *Stream) frame {
	t := s.Truth[0]
	return frame{t.LatDeg, t.LonDeg, math.Cos(t.LatDeg * math.Pi / 180)}
}

func (f frame) vec(latDeg, lonDeg float64) vec {
	return vec{(lonDeg - f.lon0) * metresPerDeg * f.cosLat, (latDeg - f.lat0) * metresPerDeg}
}

func (f frame) degrees(v vec) (latDeg, lonDeg float64) {
	return f.lat0 + v.n/metresPerDeg, f.lon0 + v.e/(metresPerDeg*f.cosLat)
}

// reference is the truth at the rows of one run.
type reference struct {
	known []bool
	at    []vec
	// velocity is the truth's over one second about the row.
	velocity []vec
	// standing marks rows within a stretch of at least 5 s in which the truth
	// keeps within half a metre.
	standing []bool
}

type truthPath struct {
	t []int64
	p []vec
}

func newTruthPath(s *Stream, f frame) truthPath {
	tp := truthPath{make([]int64, len(s.Truth)), make([]vec, len(s.Truth))}
	for i, p := range s.Truth {
		tp.t[i], tp.p[i] = p.TimeMS, f.vec(p.LatDeg, p.LonDeg)
	}
	return tp
}

func (tp truthPath) at(ms int64) (vec, bool) {
	j := sort.Search(len(tp.t), func(i int) bool { return tp.t[i] > ms })
	if j > 0 && tp.t[j-1] == ms {
		return tp.p[j-1], true
	}
	if j == 0 || j == len(tp.t) || tp.t[j]-tp.t[j-1] > maxTruthGapMS {
		return vec{}, false
	}
	w := float64(ms-tp.t[j-1]) / float64(tp.t[j]-tp.t[j-1])
	return lerp(tp.p[j-1], tp.p[j], w), true
}

func newReference(tp truthPath, fixes []gpsfilter.Fix) *reference {
	r := &reference{make([]bool, len(fixes)), make([]vec, len(fixes)), make([]vec, len(fixes)), make([]bool, len(fixes))}
	for i, fix := range fixes {
		r.at[i], r.known[i] = tp.at(fix.TimeMS)
		a, okA := tp.at(fix.TimeMS - 500)
		b, okB := tp.at(fix.TimeMS + 500)
		if !okA || !okB {
			r.velocity[i] = vec{math.NaN(), math.NaN()}
			continue
		}
		r.velocity[i] = b.sub(a)
	}
	r.findStanding(fixes)
	return r
}

func (r *reference) findStanding(fixes []gpsfilter.Fix) {
	for i := 0; i < len(fixes); {
		j := i
		for j < len(fixes) && r.known[j] && r.at[j].sub(r.at[i]).norm() < 0.5 {
			j++
		}
		if j == i {
			i++
			continue
		}
		if fixes[j-1].TimeMS-fixes[i].TimeMS >= 5000 {
			for k := i; k < j; k++ {
				r.standing[k] = true
			}
			i = j
			continue
		}
		i++
	}
}
