// Package gpsfilter turns a vehicle's raw GPS fixes into a clean live position
// with honest uncertainty. It is pure: no clock, no goroutine, no I/O, and no
// allocation in steady state. A Go program can import it alone.
package gpsfilter

// Fields says which optional fields of a Fix were reported.
type Fields uint8

// Optional fields of a Fix.
const (
	FieldAccuracy Fields = 1 << iota
	FieldSpeed
	FieldHeading
)

// Fix is one reported position. Every number in it must be finite.
type Fix struct {
	// TimeMS is the device time in milliseconds since the Unix epoch.
	TimeMS int64
	// LatDeg and LonDeg are WGS84 degrees.
	LatDeg, LonDeg float64
	// AccuracyM, SpeedMPS and HeadingDeg count only when their bit in Has is set.
	AccuracyM, SpeedMPS, HeadingDeg float32
	Has                             Fields
}

// Verdict is the filter's judgement of one fix.
type Verdict uint8

// Verdicts. The numbers are part of the encoding and do not change.
const (
	VerdictNone       Verdict = 0
	VerdictAccepted   Verdict = 1 // used at full weight
	VerdictCorrected  Verdict = 2 // used at reduced weight
	VerdictOutlier    Verdict = 3 // not used: too far from where the vehicle can be
	VerdictStandstill Verdict = 4 // the vehicle stands, the position is held
	VerdictWarmingUp  Verdict = 5 // too little is known to judge
	VerdictStale      Verdict = 6 // repeats an old position under a new time
	VerdictOutOfOrder Verdict = 7 // not after the fix before it: ignored
)

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	names := [...]string{"none", "accepted", "corrected", "outlier", "standstill", "warming_up", "stale", "out_of_order"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// Estimate is where the vehicle is at TimeMS and how sure that is.
type Estimate struct {
	TimeMS                                int64
	LatDeg, LonDeg                        float64
	SpeedMPS, HeadingDeg                  float64
	HasSpeed, HasHeading                  bool
	VarEastM2, CovEastNorthM2, VarNorthM2 float64
	// Verdict and NormalisedDistance (in standard deviations) judge the fix
	// that the estimate follows.
	Verdict            Verdict
	NormalisedDistance float64

	// trackVarM2 is the variance per axis of the track without the receiver's
	// bias; Smooth weighs by it.
	trackVarM2 float64
}
