// Package gpsfilter turns a vehicle's raw GPS fixes into a clean live position
// with honest uncertainty. It is pure: no clock, no goroutine, no I/O, and no
// allocation in steady state. A Go program can import it alone.
package gpsfilter

// StateVersion is the version of State's encoding and of what Step computes.
// Outputs of two versions may differ.
const StateVersion = 4

// Fields marks which optional fields of a Fix were reported.
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

// Estimate is what the filter knows at TimeMS. It carries two products that
// are kept apart: the live position is the best causal estimate and serves
// dispatch and nearest; the display position is calm (held at standstill,
// trailing the live one) and serves maps, distance and billing.
type Estimate struct {
	TimeMS int64
	// LatDeg and LonDeg are the live position.
	LatDeg, LonDeg                        float64
	SpeedMPS, HeadingDeg                  float64
	HasSpeed, HasHeading                  bool
	VarEastM2, CovEastNorthM2, VarNorthM2 float64
	// Verdict and NormalisedDistance (in standard deviations) judge the fix
	// that the estimate follows.
	Verdict            Verdict
	NormalisedDistance float64
	// DisplayLatDeg and DisplayLonDeg are the display position.
	DisplayLatDeg, DisplayLonDeg float64
	// OdometerM is the length of the display track in metres since the State
	// was new, without the steps by which the filter found out that it had been
	// elsewhere.
	OdometerM float64
}

// Diagnosis is what the filter has learned of the device that reports.
type Diagnosis struct {
	// Fixes counts the fixes that it was learned from, up to a bound.
	Fixes int
	// AccuracyScale is the spread per axis that the positions show, over the
	// accuracy that the device reports: 1 for an honest device, more for one
	// that claims too much; 0 when it reports none.
	AccuracyScale float64
	// HasVelocity reports whether the device has reported speed with heading
	// lately; VelocityCredibility, from 0 to 1, is how far that predicts where
	// the next positions are.
	HasVelocity         bool
	VelocityCredibility float64
	// BiasM is the size in metres of position errors that last.
	BiasM float64
	// OutlierShare, from 0 to 1, is the recent share of fixes not used.
	OutlierShare float64
}
