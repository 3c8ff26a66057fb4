package tracker

import "github.com/starling-fleet/starling/gpsfilter"

// doubtful is the filter of a step version that only tests carry: it is half as
// sure of where a vehicle is. Its own digest is the shipped filter's, so only
// the golden log tells the two apart.
type doubtful struct{ filter }

func (f doubtful) Step(s *gpsfilter.State, fix gpsfilter.Fix) gpsfilter.Estimate {
	e := f.filter.Step(s, fix)
	e.VarEastM2, e.VarNorthM2 = 4*e.VarEastM2, 4*e.VarNorthM2
	return e
}

// NextStepVersion is the version after the newest, which only tests carry.
const NextStepVersion = StepVersion + 1

func withNext() versions {
	return append(stepVersions[:len(stepVersions):len(stepVersions)], stepVersion{
		number: NextStepVersion,
		newFilter: func(c gpsfilter.Config) (filter, error) {
			f, err := gpsfilter.New(c)
			return doubtful{f}, err
		},
	})
}

// CarryNext makes t a tracker of the binary after this one.
func (t *Tracker) CarryNext() { t.carried = withNext() }

// NewNextPartition is NewPartition of the binary after this one, starting with
// the step version that is asked for.
func NewNextPartition(version int32, settings Settings, epoch int64) (*Partition, error) {
	p, err := newPartition(withNext(), settings, epoch)
	if err == nil {
		err = p.use(p.carried.find(int64(version)), settings)
	}
	return p, err
}

// NewSwitchToNext is NewVersionSwitch of the binary after this one.
var NewSwitchToNext = func(settings Settings) ([]byte, error) {
	l, err := withNext().newest().newSwitch(settings)
	return l.Append(nil), err
}

// GoldenDigest is what a version that this binary carries computes.
func GoldenDigest(version int32, settings Settings) ([]byte, error) {
	return stepVersions.find(int64(version)).goldenDigest(settings)
}
