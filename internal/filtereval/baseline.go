package filtereval

import "github.com/starling-fleet/starling/gpsfilter"

// Runner turns a device's fixes into the live estimate after each of them.
type Runner func(fixes []gpsfilter.Fix) []gpsfilter.Estimate

// Raw passes every fix through.
func Raw(fixes []gpsfilter.Fix) []gpsfilter.Estimate {
	out := make([]gpsfilter.Estimate, len(fixes))
	for i, f := range fixes {
		out[i] = gpsfilter.Estimate{
			TimeMS: f.TimeMS, LatDeg: f.LatDeg, LonDeg: f.LonDeg,
			SpeedMPS: float64(f.SpeedMPS), HasSpeed: f.Has&gpsfilter.FieldSpeed != 0,
			HeadingDeg: float64(f.HeadingDeg), HasHeading: f.Has&gpsfilter.FieldHeading != 0,
			VarEastM2: 25, VarNorthM2: 25, DisplayLatDeg: f.LatDeg, DisplayLonDeg: f.LonDeg,
		}
	}
	return out
}

// Starling runs gpsfilter.
func Starling(f *gpsfilter.Filter) Runner {
	return func(fixes []gpsfilter.Fix) []gpsfilter.Estimate {
		var s gpsfilter.State
		out := make([]gpsfilter.Estimate, len(fixes))
		for i, fix := range fixes {
			out[i] = f.Step(&s, fix)
		}
		return out
	}
}

// Settings of the baseline.
const (
	baselineNoise        = 1.0  // m²/s³, white acceleration
	baselineAccuracyM    = 5.0  // where none is reported
	baselineGate         = 13.8 // 99.9 % of a chi-squared with 2 degrees
	baselineMaxRejected  = 5    // then it starts over
	baselineStartSpeedSD = 15.0
)

// Baseline is the plain filter that the faulted rows are compared with: a
// constant-velocity Kalman filter on positions with a hard gate, which starts
// over after five rejected fixes in a row.
func Baseline(fixes []gpsfilter.Fix) []gpsfilter.Estimate {
	out := make([]gpsfilter.Estimate, len(fixes))
	if len(fixes) == 0 {
		return out
	}
	fr := newFrame(&Stream{Truth: []TruthPoint{{LatDeg: fixes[0].LatDeg, LonDeg: fixes[0].LonDeg}}})
	var x, v vec
	var pp, pv, vv float64 // both axes have the same covariance
	rejected := baselineMaxRejected
	for i, f := range fixes {
		z := fr.vec(f.LatDeg, f.LonDeg)
		r := baselineAccuracyM * baselineAccuracyM
		if f.Has&gpsfilter.FieldAccuracy != 0 && f.AccuracyM > 0 {
			r = float64(f.AccuracyM) * float64(f.AccuracyM)
		}
		if i > 0 {
			dt := float64(f.TimeMS-fixes[i-1].TimeMS) / 1000
			x = x.add(v.scale(dt))
			pp += 2*dt*pv + dt*dt*vv + baselineNoise*dt*dt*dt/3
			pv += dt*vv + baselineNoise*dt*dt/2
			vv += baselineNoise * dt
		}
		y := z.sub(x)
		switch d2 := (y.e*y.e + y.n*y.n) / (pp + r); {
		case rejected >= baselineMaxRejected:
			x, v = z, vec{}
			pp, pv, vv = r, 0, baselineStartSpeedSD*baselineStartSpeedSD
			rejected = 0
		case d2 > baselineGate:
			rejected++
		default:
			rejected = 0
			k, kv := pp/(pp+r), pv/(pp+r)
			x, v = x.add(y.scale(k)), v.add(y.scale(kv))
			vv -= kv * pv
			pp, pv = pp*(1-k), pv*(1-k)
		}
		e := gpsfilter.Estimate{TimeMS: f.TimeMS, VarEastM2: pp, VarNorthM2: pp, SpeedMPS: v.norm(), HasSpeed: true}
		e.LatDeg, e.LonDeg = fr.degrees(x)
		e.DisplayLatDeg, e.DisplayLonDeg = e.LatDeg, e.LonDeg
		if e.SpeedMPS > 1 {
			e.HeadingDeg, e.HasHeading = courseDeg(v), true
		}
		out[i] = e
	}
	return out
}
