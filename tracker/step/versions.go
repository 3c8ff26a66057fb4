package step

import (
	"bytes"
	"fmt"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/schemas/wire"
)

// Version is one version of what Step computes that a binary carries. Everything
// that differs between versions hangs on it.
type Version struct {
	Number int32
	// NewFilter makes the version's filter.
	NewFilter func(gpsfilter.Config) (Filter, error)
	// Outcomes is true if a track says what became of each fix of its report, by
	// session, sequence and rule, and if the version knows erasures.
	Outcomes bool
}

// Versions are the step versions that a binary carries, oldest first. It carries
// an old one for as long as a log may still be stepped by it.
type Versions []Version

// Carried returns the versions that this binary carries.
// testdata/step_versions.pinned pins what each of them computes. A partition
// without a checkpoint starts with the newest.
func Carried() Versions {
	filter := func(c gpsfilter.Config) (Filter, error) { return gpsfilter.New(c) }
	return Versions{
		{Number: 2, NewFilter: filter},
		{Number: Newest, NewFilter: filter, Outcomes: true},
	}
}

// find returns the version with the number, or nil.
func (c Versions) find(number int64) *Version {
	for i := range c {
		if int64(c[i].Number) == number {
			return &c[i]
		}
	}
	return nil
}

func (c Versions) newest() *Version { return &c[len(c)-1] }

// Numbers are the numbers of the versions.
func (c Versions) Numbers() []int32 {
	var numbers []int32
	for i := range c {
		numbers = append(numbers, c[i].Number)
	}
	return numbers
}

// UnknownVersionError means that the log or a checkpoint asks for a step that
// this binary can't make. The record was not stepped; a binary that can has to
// go on.
type UnknownVersionError struct {
	// Offset is the version switch, or the record that the checkpoint stands for.
	Offset      int64
	StepVersion int32
	// Carried are the versions that the binary has.
	Carried []int32
	Reason  string
}

func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("offset %d asks for step version %d, which this binary (it carries %v) can't serve: %s",
		e.Offset, e.StepVersion, e.Carried, e.Reason)
}

const unknownVersion = "it does not know the version"

// NewVersionSwitch returns the record that makes every tracker step by a
// version that this binary carries and these settings from the record's offset
// on. It has to be appended to every partition of `locations`, with an empty
// key; a repetition changes nothing. Going back is another switch, to the
// former version and settings.
func NewVersionSwitch(version int32, settings Settings) (wire.Location, error) {
	return Carried().NewVersionSwitch(version, settings)
}

// NewVersionSwitch is the function NewVersionSwitch of a binary that carries
// these versions.
func (c Versions) NewVersionSwitch(version int32, settings Settings) (wire.Location, error) {
	v := c.find(int64(version))
	if v == nil {
		return wire.Location{}, fmt.Errorf("step version %d: this binary carries %v", version, c.Numbers())
	}
	digest, err := v.goldenDigest(settings)
	if err != nil {
		return wire.Location{}, err
	}
	return wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{
		StepVersion: v.Number, Settings: settings.Encode(), GoldenDigest: digest,
	}}, nil
}

// switchVersion starts the step version and settings that the log names.
func (p *Partition) switchVersion(offset int64, s *wire.VersionSwitch) error {
	refuse := func(reason string) error {
		return &UnknownVersionError{Offset: offset, StepVersion: s.StepVersion, Carried: p.carried.Numbers(), Reason: reason}
	}
	version := p.carried.find(int64(s.StepVersion))
	if version == nil {
		return refuse(unknownVersion)
	}
	settings, err := DecodeSettings(s.Settings)
	if err != nil {
		return refuse(fmt.Sprintf("the settings are not its own: %v", err))
	}
	if len(s.GoldenDigest) > 0 {
		digest, err := version.goldenDigest(settings)
		if err != nil {
			return refuse(err.Error())
		}
		if !bytes.Equal(digest, s.GoldenDigest) {
			return refuse(fmt.Sprintf("its golden outputs have the digest %x, not %x", digest, s.GoldenDigest))
		}
	}
	differs := version != p.version || settings != p.settings
	if err := p.use(version, settings); err != nil {
		return refuse(err.Error())
	}
	if differs {
		// Views may have become others: those that time alone has published are
		// published once more, by the moments of the new settings.
		p.repeated = moment{}
	}
	// The filter may have changed, and live must stay what base and the open
	// fixes make of it: it is made again when the vehicle reports next. Timers
	// may expire earlier than they are scheduled.
	for _, v := range p.byID() {
		v.liveValid = false
		if v.memory.trim(settings.RememberFixes) {
			p.markChanged(v)
		}
		if !version.Outcomes && v.eraseUntilMS != 0 {
			v.eraseUntilMS = 0 // the version knows no erasures
			p.markChanged(v)
		}
		p.timers.scheduleBy(v, p.timerMS(v))
	}
	p.countAll()
	return nil
}

// use makes the partition step by a version and settings from now on.
func (p *Partition) use(version *Version, settings Settings) error {
	if err := settings.Validate(); err != nil {
		return fmt.Errorf("step settings: %w", err)
	}
	f, err := version.NewFilter(settings.Filter)
	if err != nil {
		return fmt.Errorf("step settings: %w", err)
	}
	p.version, p.settings, p.filter = version, settings, f
	return nil
}

// restore makes the partition step by what its checkpoint states.
func (p *Partition) restore(h header) error {
	version := p.carried.find(h.stepVersion)
	if version == nil {
		return &UnknownVersionError{Offset: h.offset, StepVersion: int32(h.stepVersion), Carried: p.carried.Numbers(), Reason: unknownVersion}
	}
	settings, err := DecodeSettings(h.settings)
	if err != nil {
		return err
	}
	p.streamMS, p.jump, p.offset, p.repeated, p.assertions = h.streamMS, h.jump, h.offset, h.repeated, h.assertions
	return p.use(version, settings)
}

// InForce is what a partition is stepped by, according to its checkpoint.
type InForce struct {
	StepVersion int32
	// Settings are as Settings.Encode writes them in the binary that stored them.
	Settings []byte
	// Offset is the last record that the checkpoint stands for.
	Offset int64
}

// ReadInForce reads one key of the topic `tracker-state`. It returns false for
// the keys of vehicles.
func ReadInForce(key, value []byte) (InForce, bool, error) {
	if string(key) != headerKey {
		return InForce{}, false, nil
	}
	h, err := decodeHeader(value)
	return InForce{StepVersion: int32(h.stepVersion), Settings: h.settings, Offset: h.offset}, err == nil, err
}
