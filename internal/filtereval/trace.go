package filtereval

import (
	"math"

	"github.com/starling-fleet/starling/gpsfilter"
)

// At is a place in metres from a stream's origin.
type At struct{ EastM, NorthM float64 }

// DistanceM is the distance to another place, in metres.
func (a At) DistanceM(b At) float64 { return math.Hypot(a.EastM-b.EastM, a.NorthM-b.NorthM) }

// TracePoint is one row of a run.
type TracePoint struct {
	// TimeS counts from the first fix, in seconds.
	TimeS            float64
	Raw, Live, Truth At
	// Known reports whether there is a truth for the moment.
	Known bool
	// Sigma95M is the long half axis of the stated 95 % ellipse, in metres.
	Sigma95M float64
	// D2 is the squared distance of the live place from truth under the stated
	// covariance.
	D2 float64
}

// Trace runs a filter over fixes of a stream and puts what it shows beside truth.
func Trace(s *Stream, fixes []gpsfilter.Fix, f Runner) []TracePoint {
	fr := newFrame(s)
	ref := newReference(newTruthPath(s, fr), fixes)
	live := f(fixes)
	out := make([]TracePoint, len(fixes))
	for i, fix := range fixes {
		e := live[i]
		raw, at := fr.vec(fix.LatDeg, fix.LonDeg), fr.vec(e.LatDeg, e.LonDeg)
		p := TracePoint{
			TimeS: float64(fix.TimeMS-fixes[0].TimeMS) / 1000,
			Raw:   At{raw.e, raw.n}, Live: At{at.e, at.n}, Truth: At{ref.at[i].e, ref.at[i].n}, Known: ref.known[i],
		}
		mean, diff := (e.VarEastM2+e.VarNorthM2)/2, (e.VarEastM2-e.VarNorthM2)/2
		p.Sigma95M = math.Sqrt(ellipse95 * (mean + math.Hypot(diff, e.CovEastNorthM2)))
		d := at.sub(ref.at[i])
		det := e.VarEastM2*e.VarNorthM2 - e.CovEastNorthM2*e.CovEastNorthM2
		p.D2 = (d.e*d.e*e.VarNorthM2 - 2*d.e*d.n*e.CovEastNorthM2 + d.n*d.n*e.VarEastM2) / det
		out[i] = p
	}
	return out
}
