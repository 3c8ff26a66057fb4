package gpsfilter

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// constants holds the numbers that the result depends on, one a line: value,
// unit, source, meaning. A test keeps numbers out of the other files. Sources:
//
//   - fitted: chosen together on drives with truth; docs/gpsfilter.md describes how,
//     and what half and one and a half of each does;
//   - physical: what vehicles, receivers and the contract of the package are;
//   - numerical: keeps learning and arithmetic within bounds.
type constants struct {
	CruiseQ         float64 `value:"0.4" unit:"m²/s³" source:"physical" meaning:"white acceleration of a vehicle that cruises"`
	ManoeuvreQ      float64 `value:"32" unit:"m²/s³" source:"fitted" meaning:"white acceleration of a vehicle that brakes, pulls away or turns"`
	StandQ          float64 `value:"0.04" unit:"m²/s" source:"physical" meaning:"random walk of the position of a vehicle that stands"`
	ModeS           float64 `value:"300" unit:"s" source:"physical" meaning:"mean time for which a model stays the right one"`
	VelocitySD      float64 `value:"0.2" unit:"m/s" source:"physical" meaning:"error of a reported velocity that lasts a second, per axis"`
	BridgeShare     float64 `value:"0.7" unit:"1" source:"fitted" meaning:"error of the way between two reported velocities over their difference times the time between"`
	JitterShare     float64 `value:"1.5" unit:"s" source:"fitted" meaning:"random walk of the carried position per variance of the reported velocity's jitter"`
	BiasTauS        float64 `value:"5.5" unit:"s" source:"fitted" meaning:"time constant of position errors that last"`
	BiasGain        float64 `value:"0.8" unit:"1" source:"fitted" meaning:"variance of the bias over that of the fixes about a dead-reckoned mean"`
	SlowMeanS       float64 `value:"12" unit:"s" source:"numerical" meaning:"time constant of that mean"`
	BiasRateS       float64 `value:"120" unit:"s" source:"numerical" meaning:"memory of the bias's variance"`
	WhiteRate       float64 `value:"0.4" unit:"1" source:"numerical" meaning:"learning rate of the white noise from the correlation of innovations"`
	NoiseRate       float64 `value:"0.01" unit:"1" source:"numerical" meaning:"learning rate of the white noise from steps against the reported velocity"`
	NoiseFraction   float64 `value:"0.07" unit:"1" source:"fitted" meaning:"first guess of the white noise's deviation over the stated accuracy"`
	LagPrior        float64 `value:"2" unit:"1/s²" source:"numerical" meaning:"weight of the first guess that a reported velocity is not late"`
	TrustS          float64 `value:"40" unit:"s" source:"physical" meaning:"time after which the fixes are asked whether the bias of then was one"`
	TrustStart      float64 `value:"0.9" unit:"1" source:"fitted" meaning:"share of the bias that is believed of a new device"`
	TrustPrior      float64 `value:"4" unit:"1" source:"numerical" meaning:"weight of that first guess, in answers"`
	TrustForget     float64 `value:"0.7" unit:"1" source:"numerical" meaning:"what is kept from answer to answer"`
	Gate            float64 `value:"20" unit:"1" source:"fitted" meaning:"squared normalised distance beyond which a fix is not used"`
	GateM           float64 `value:"50" unit:"m" source:"fitted" meaning:"distance below which a fix is always used"`
	CoverM          float64 `value:"2.48" unit:"m" source:"fitted" meaning:"deviation of errors that positions alone do not show"`
	CoverInnovation float64 `value:"40" unit:"1" source:"fitted" meaning:"stated variance per variance of the innovations beyond the expected"`
	CoverCarried    float64 `value:"4" unit:"1" source:"fitted" meaning:"stated variance of the carried model over what it computes"`
	CoverCarriedM   float64 `value:"0.25" unit:"m" source:"fitted" meaning:"deviation of errors that the reported velocity does not show"`

	BridgeMPS2      float64 `value:"1" unit:"m/s²" source:"physical" meaning:"change of acceleration between two reported velocities"`
	WhiteS          float64 `value:"2" unit:"s" source:"physical" meaning:"time between fixes beyond which innovations show the driver, not the noise"`
	CoverS          float64 `value:"1000" unit:"s" source:"physical" meaning:"memory of the innovations' variance: a stretch of road"`
	StaleS          float64 `value:"12" unit:"s" source:"physical" meaning:"time for which an exactly repeated position of a vehicle that drives is not believed"`
	OwnStaleS       float64 `value:"3" unit:"s" source:"physical" meaning:"the longest time between fixes for which that holds where no velocity is reported"`
	DisplayShare    float64 `value:"1" unit:"1" source:"physical" meaning:"distance that the display position trails behind the live one, over the stated deviation"`
	DisplayStand    float64 `value:"3" unit:"1" source:"physical" meaning:"what standing adds to that factor"`
	DisplayMPS      float64 `value:"1" unit:"m/s" source:"physical" meaning:"speed at which half of that is left"`
	DisplayDoubts   float64 `value:"3" unit:"fixes" source:"physical" meaning:"doubtful fixes in a row after which the display position follows them"`
	StartVelSD      float64 `value:"12" unit:"m/s" source:"physical" meaning:"deviation of an unknown velocity, per axis: town traffic"`
	StandingMPS     float64 `value:"0.3" unit:"m/s" source:"physical" meaning:"reported speed below which a vehicle stands"`
	MovingMPS       float64 `value:"1" unit:"m/s" source:"physical" meaning:"speed above which a vehicle moves, and a heading is stated"`
	OwnMovingMPS    float64 `value:"2" unit:"m/s" source:"physical" meaning:"the same by the positions alone, for judging repeated ones"`
	SpeedKnownSD    float64 `value:"7" unit:"m/s" source:"physical" meaning:"deviation of the velocity above which no speed is stated"`
	CourselessFixes float64 `value:"5" unit:"fixes" source:"physical" meaning:"driving fixes in a row with a speed but no course from which on the device has none"`
	VelocityMemoryS float64 `value:"5" unit:"s" source:"physical" meaning:"age up to which a reported velocity is learned from"`
	MaxLagS         float64 `value:"1.2" unit:"s" source:"physical" meaning:"largest lag or lead of a reported velocity"`
	CoarseRatio     float64 `value:"5" unit:"1" source:"physical" meaning:"stated accuracy over the usual one from which a fix has another source than GPS, if it is also beyond CoarseM"`
	CoarseM         float64 `value:"150" unit:"m" source:"physical" meaning:"stated accuracy from which a fix may have another source than GPS"`
	CoarseVar       float64 `value:"0.44" unit:"1" source:"physical" meaning:"variance per axis of such a fix over its squared accuracy, the radius of 68 %"`
	UsualUpRate     float64 `value:"0.02" unit:"1" source:"physical" meaning:"rate at which the usual accuracy follows worse ones"`
	UsualDownRate   float64 `value:"0.3" unit:"1" source:"physical" meaning:"rate at which it follows better ones"`
	FineRatio       float64 `value:"0.33" unit:"1" source:"physical" meaning:"stated accuracy over the usual one below which all fixes before were coarse"`
	GuardM          float64 `value:"23" unit:"m" source:"physical" meaning:"safety net: largest distance from the last of three plausible positions, at least; the promise is 25 m"`
	GuardShare      float64 `value:"0.98" unit:"1" source:"physical" meaning:"part of that which is used, so that rounding cannot break it"`
	GuardSD         float64 `value:"2.4" unit:"1" source:"physical" meaning:"distance to a used fix over the least stated deviation; the 95 % radius is 2.448"`
	GuardCount      float64 `value:"3" unit:"fixes" source:"physical" meaning:"plausible positions in a row that the safety net needs, and that always move the track"`
	YoungSupport    float64 `value:"4" unit:"fixes" source:"physical" meaning:"support below which two fixes in a row move the track"`
	NewSupport      float64 `value:"2.5" unit:"fixes" source:"physical" meaning:"support below which one does"`
	MaxSupport      float64 `value:"8" unit:"fixes" source:"physical" meaning:"bound of the support"`
	CorrectedD2     float64 `value:"16" unit:"1" source:"physical" meaning:"squared normalised distance beyond which a used fix is called corrected"`
	GridFixes       float64 `value:"5" unit:"fixes" source:"physical" meaning:"rounded coordinates in a row before they count as rounded"`
	CoarseGridDeg   float64 `value:"0.001" unit:"°" source:"physical" meaning:"step of coordinates of three decimals"`
	FineGridDeg     float64 `value:"0.0001" unit:"°" source:"physical" meaning:"step of coordinates of four decimals"`
	RateOutliers    float64 `value:"0.02" unit:"1" source:"physical" meaning:"memory of the diagnosis: share of outliers"`
	RateCredible    float64 `value:"0.05" unit:"1" source:"physical" meaning:"memory of the diagnosis: credibility of the velocity"`

	DOF           float64 `value:"4" unit:"1" source:"paper" meaning:"degrees of freedom of the Student-t noise (Roth, Özkan and Gustafsson 2013); the code needs 4"`
	JitterRate    float64 `value:"0.05" unit:"1" source:"numerical" meaning:"learning rate of the reported velocity's jitter"`
	JitterStart   float64 `value:"0.04" unit:"m²/s²" source:"numerical" meaning:"its first guess"`
	JitterMaxS    float64 `value:"3" unit:"s" source:"numerical" meaning:"time between fixes up to which it is learned"`
	SmallVar      float64 `value:"0.01" unit:"m²" source:"numerical" meaning:"variance that learning always allows"`
	FloorVar      float64 `value:"0.0001" unit:"m²" source:"numerical" meaning:"least white noise"`
	CeilingVar    float64 `value:"1000000" unit:"m²" source:"numerical" meaning:"largest white noise"`
	StepFloorVar  float64 `value:"0.0025" unit:"m²" source:"numerical" meaning:"least noise against a reported velocity"`
	Clip          float64 `value:"4" unit:"1" source:"numerical" meaning:"squares count up to so many times what is expected"`
	InnovClip     float64 `value:"25" unit:"1" source:"numerical" meaning:"the same for the innovations' variance"`
	LagClip       float64 `value:"64" unit:"1" source:"numerical" meaning:"squared step over variance beyond which no lag is learned"`
	LagForget     float64 `value:"0.998" unit:"1" source:"numerical" meaning:"what of a lag's evidence is kept from fix to fix"`
	WhiteClip     float64 `value:"3" unit:"1" source:"numerical" meaning:"normalised innovations count up to that"`
	WhiteStep     float64 `value:"0.9" unit:"1" source:"numerical" meaning:"largest relative change of the white noise in a step"`
	StartCount    float64 `value:"10" unit:"fixes" source:"numerical" meaning:"fixes as many as which the first guess of the bias weighs"`
	InnovStart    float64 `value:"60" unit:"fixes" source:"numerical" meaning:"fixes as many as which the first guess of the innovations' variance, zero, weighs"`
	MaxCount      float64 `value:"1000" unit:"fixes" source:"numerical" meaning:"bound of counters"`
	TrustMaxS     float64 `value:"20" unit:"s" source:"numerical" meaning:"time between fixes beyond which the bias is not asked for"`
	LeastWeight   float64 `value:"1e-9" unit:"1" source:"numerical" meaning:"least weight of a model"`
	LeastMix      float64 `value:"1e-6" unit:"1" source:"numerical" meaning:"least share that is mixed"`
	GridTolerance float64 `value:"1e-6" unit:"steps" source:"numerical" meaning:"how far from a grid a rounded coordinate may be"`
	ReanchorM     float64 `value:"5000" unit:"m" source:"numerical" meaning:"distance at which the plane is moved under the vehicle"`
	MaxAccuracyM  float64 `value:"1000000" unit:"m" source:"numerical" meaning:"accuracies beyond it are alike"`
	MaxVar        float64 `value:"1e12" unit:"m²" source:"numerical" meaning:"largest variance"`
}

// Structural numbers: units, shapes and factors of formulas.
const (
	msPerS = 1000

	earthRadiusM   = 6371008.8
	metresPerDeg   = earthRadiusM * math.Pi / halfTurnDeg
	degPerMetre    = 1 / metresPerDeg
	minCosLatitude = 1e-4
	maxLatDeg      = 90
	halfTurnDeg    = 180
	fullTurnDeg    = 360
	quarterTurnDeg = 90
	quarters       = 4

	// whiteAccel3 and bridge12 are the integrals of white acceleration over a
	// step and between two known velocities; jitter12 is two axes times the sum
	// of the squares of (1, -2, 1); uniform12 the variance of a uniform
	// distribution of width 1.
	whiteAccel3 = 3
	bridge12    = 12
	jitter12    = 12
	uniform12   = 12
	// twoSteps is the variance of a difference of two fixes summed over two
	// axes, in white variances.
	twoSteps = 4
	hashes   = 4

	fnvOffset = 2166136261
	fnvPrime  = 16777619
	wordBits  = 32
	byteBits  = 8
)

// Coefficients of approximations in powers of the square, highest first: Taylor
// polynomials of sine over x and of cosine for [-π/4, π/4], and the minimax
// polynomial of the arc tangent over x on [0, 1] (Abramowitz and Stegun, 4.4.49).
var (
	sinTaylor   = [...]float64{1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1}
	cosTaylor   = [...]float64{-1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -1.0 / 2, 1}
	atanMinimax = [...]float64{0.0028662257, -0.0161657367, 0.0429096138, -0.0752896400, 0.1065626393, -0.1420889944, 0.1999355085, -0.3333314528, 1}
)

// Constant is one line of the table.
type Constant struct {
	Name, Unit, Source, Meaning string
	Value                       float64
}

// Constants returns the table with the values that f computes with.
func (f *Filter) Constants() []Constant {
	v := reflect.ValueOf(f.c)
	out := make([]Constant, v.NumField())
	for i := range out {
		t := v.Type().Field(i)
		out[i] = Constant{t.Name, t.Tag.Get("unit"), t.Tag.Get("source"), t.Tag.Get("meaning"), v.Field(i).Float()}
	}
	return out
}

// With returns a copy of f with one constant changed, for evaluations: a filter
// in service uses the table's. It returns an error if there is none of that
// name.
func (f *Filter) With(name string, value float64) (*Filter, error) {
	c := *f
	field := reflect.ValueOf(&c.c).Elem().FieldByName(name)
	if !field.IsValid() {
		return nil, fmt.Errorf("gpsfilter has no constant %q", name)
	}
	field.SetFloat(value)
	return &c, nil
}

func tableConstants() (c constants, err error) {
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		t := v.Type().Field(i)
		x, err := strconv.ParseFloat(t.Tag.Get("value"), 64)
		if err != nil {
			return c, fmt.Errorf("constant %s: %w", t.Name, err)
		}
		v.Field(i).SetFloat(x)
	}
	return c, nil
}
