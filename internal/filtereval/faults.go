package filtereval

import (
	"math"
	"math/rand/v2"

	"github.com/starling-fleet/starling/gpsfilter"
)

// Tag is what was done to one fix.
type Tag uint8

// Tags of fixes.
const (
	TagGood Tag = iota
	TagJump
	TagFrozen
	TagBadFirst
)

// Faults is what Inject does. Chances are per fix, lengths are uniform.
type Faults struct {
	JumpChance float64
	// MaxJumpRows is the largest number of fixes that share one jump.
	MaxJumpRows             int
	MinJumpM, MaxJumpM      float64
	FreezeEveryS            float64
	MaxFreezeS              float64
	GapEveryS, MaxGapS      float64
	MaxBadFirst             int
	DropFieldChance         float64
	DropAllEveryS, MaxDropS float64
}

// AllFaults is the mixture that the table's faulted rows are made with.
func AllFaults() Faults {
	return Faults{
		JumpChance: 0.02, MaxJumpRows: 1, MinJumpM: 50, MaxJumpM: 5000,
		FreezeEveryS: 240, MaxFreezeS: 12,
		GapEveryS: 240, MaxGapS: 45,
		MaxBadFirst:     3,
		DropFieldChance: 0.1, DropAllEveryS: 300, MaxDropS: 40,
	}
}

// Inject returns a faulty copy of fixes and what was done to each. It depends
// on its arguments alone.
func Inject(fixes []gpsfilter.Fix, faults Faults, seed uint64) ([]gpsfilter.Fix, []Tag) {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	in := injector{faults: faults, rng: rng, out: make([]gpsfilter.Fix, 0, len(fixes)), tags: make([]Tag, 0, len(fixes))}
	if faults.MaxBadFirst > 0 {
		in.badFirst = rng.IntN(faults.MaxBadFirst + 1)
	}
	for _, fix := range fixes {
		in.add(fix)
	}
	return in.out, in.tags
}

type injector struct {
	faults Faults
	rng    *rand.Rand
	out    []gpsfilter.Fix
	tags   []Tag

	badFirst                int
	jumpLeft                int
	jumpE, jumpN            float64
	lastMS                  int64
	frozen                  gpsfilter.Fix
	frozenTo, gapTo, dropTo int64
	frozenFields            bool
}

func (in *injector) add(fix gpsfilter.Fix) {
	dt := 0.0
	if len(in.out) > 0 {
		dt = float64(fix.TimeMS-in.lastMS) / 1000
	}
	in.lastMS = fix.TimeMS
	if in.begins(fix, dt, in.faults.GapEveryS, in.faults.MaxGapS, &in.gapTo); fix.TimeMS < in.gapTo {
		return
	}
	tag := TagGood
	original := fix
	switch {
	case len(in.out) < in.badFirst:
		tag = TagBadFirst
		if len(in.out) == 0 || in.rng.Float64() < 0.5 {
			in.drawOffset(200, in.faults.MaxJumpM)
		}
		fix = moved(fix, in.jumpE, in.jumpN)
	case in.jumpLeft > 0 || in.rng.Float64() < in.faults.JumpChance:
		tag = TagJump
		if in.jumpLeft == 0 {
			in.jumpLeft = 1 + in.rng.IntN(max(1, in.faults.MaxJumpRows))
			in.drawOffset(in.faults.MinJumpM, in.faults.MaxJumpM)
		}
		in.jumpLeft--
		fix = moved(fix, in.jumpE, in.jumpN)
	}
	if tag == TagGood && len(in.out) > 0 {
		was := in.frozenTo
		if in.begins(fix, dt, in.faults.FreezeEveryS, in.faults.MaxFreezeS, &in.frozenTo); in.frozenTo != was {
			in.frozen = original
			in.frozenFields = in.rng.Float64() < 0.5
		} else if fix.TimeMS < in.frozenTo {
			tag = TagFrozen
			fix.LatDeg, fix.LonDeg = in.frozen.LatDeg, in.frozen.LonDeg
			if in.frozenFields {
				t := fix.TimeMS
				fix = in.frozen
				fix.TimeMS = t
			}
		}
	}
	in.begins(fix, dt, in.faults.DropAllEveryS, in.faults.MaxDropS, &in.dropTo)
	for _, field := range []gpsfilter.Fields{gpsfilter.FieldAccuracy, gpsfilter.FieldSpeed, gpsfilter.FieldHeading} {
		if in.rng.Float64() < in.faults.DropFieldChance || fix.TimeMS < in.dropTo {
			fix.Has &^= field
		}
	}
	in.out = append(in.out, fix)
	in.tags = append(in.tags, tag)
}

// begins draws whether a stretch begins at this fix and until when it lasts.
func (in *injector) begins(fix gpsfilter.Fix, dt, everyS, maxS float64, until *int64) {
	if everyS <= 0 || fix.TimeMS < *until {
		return
	}
	if in.rng.Float64() < dt/everyS {
		*until = fix.TimeMS + int64((0.2+0.8*in.rng.Float64())*maxS*1000)
	}
}

func (in *injector) drawOffset(lo, hi float64) {
	d := lo * math.Pow(hi/lo, in.rng.Float64())
	a := 2 * math.Pi * in.rng.Float64()
	in.jumpE, in.jumpN = d*math.Sin(a), d*math.Cos(a)
}

func moved(fix gpsfilter.Fix, e, n float64) gpsfilter.Fix {
	fix.LonDeg += e / (metresPerDeg * math.Cos(fix.LatDeg*math.Pi/180))
	fix.LatDeg += n / metresPerDeg
	return fix
}
