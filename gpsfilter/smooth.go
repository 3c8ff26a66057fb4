package gpsfilter

// Smooth appends to dst one estimate for each fix, with the fixes after it
// taken into account: the fixed-lag smoothed points of a published track. s is
// the state before the first of fixes, which are in order of time; it is not
// changed. The point of fixes[i] profits from len(fixes)-1-i later fixes, so a
// caller that wants points with a lag of some seconds calls Smooth with the
// fixes since then and takes the first. Verdicts, speeds and headings are those
// of Step. The cost is that of two steps and a prediction for each fix, and
// Smooth allocates only to grow dst.
//
// It is a two-filter smoother (Fraser and Potter, "The optimum linear smoother
// as a combination of two optimum linear filters", 1969): a second filter runs
// backwards from the last fix, and at each fix its prediction is weighed
// against the forward estimate. Both share the receiver's bias, so the smaller
// of their covariances is stated, not the product.
func (f *Filter) Smooth(dst []Estimate, s State, fixes []Fix) []Estimate {
	first := len(dst)
	for _, fix := range fixes {
		dst = append(dst, f.Step(&s, fix))
	}
	if len(fixes) == 0 {
		return dst
	}
	// The backward filter lives in mirrored time, where courses turn round and
	// the lag of the reported velocity is a lead.
	end := fixes[len(fixes)-1].TimeMS
	back := State{whiteVar: s.whiteVar, seen: s.seen, courses: s.courses, accuracyM: s.accuracyM}
	back.speedLag, back.courseLag = s.speedLag.kept(), s.courseLag.kept()
	back.speedLag.s, back.courseLag.s = -back.speedLag.s, -back.courseLag.s
	for i := len(fixes) - 1; i >= 0; i-- {
		fix := fixes[i]
		fix.TimeMS = 1 + end - fix.TimeMS
		if e, ok := f.Predict(&back, fix.TimeMS); ok {
			f.turnRound(&back, &e)
			combine(&dst[first+i], &e)
		}
		if fix.Has&FieldHeading != 0 {
			fix.HeadingDeg += 180
		}
		f.Step(&back, fix)
	}
	return dst
}

// turnRound puts an estimate of the backward filter where the vehicle's own
// direction puts it: the lead is along the course.
func (f *Filter) turnRound(back *State, e *Estimate) {
	k := &back.k
	lead := float64(2 * f.tune.LeadS)
	e.LatDeg -= float64(float64(k.x[3]*lead) * degPerMetre)
	e.LonDeg -= float64(float64(k.x[2]*lead) * degPerMetre / back.anchor.cosLat)
}

// combine moves e towards o by what either knows of the track.
func combine(e, o *Estimate) {
	at := newPlane(e.LatDeg, e.LonDeg)
	de, dn := at.toPlane(o.LatDeg, o.LonDeg)
	w := e.trackVarM2 / (e.trackVarM2 + o.trackVarM2)
	e.LatDeg, e.LonDeg = at.toDegrees(float64(w*de), float64(w*dn))
	if o.VarEastM2+o.VarNorthM2 < e.VarEastM2+e.VarNorthM2 {
		e.VarEastM2, e.CovEastNorthM2, e.VarNorthM2 = o.VarEastM2, o.CovEastNorthM2, o.VarNorthM2
	}
}
