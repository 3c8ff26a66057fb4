package tracker

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/starling-fleet/starling/gpsfilter"
	"github.com/starling-fleet/starling/internal/eventlog"
	"github.com/starling-fleet/starling/schemas/starlingv1"
	"github.com/starling-fleet/starling/schemas/wire"
)

// stepVersion is one version of what Step computes that this binary carries.
// Everything that differs between versions hangs on it.
type stepVersion struct {
	number int32
	// newFilter makes the version's filter.
	newFilter func(gpsfilter.Config) (filter, error)
}

// versions are the step versions that a binary carries, oldest first. It
// carries an old one for as long as a log may still be stepped by it.
type versions []stepVersion

// stepVersions are what this binary carries. testdata/step_versions.pinned pins
// what each of them computes.
var stepVersions = versions{
	{number: StepVersion, newFilter: func(c gpsfilter.Config) (filter, error) { return gpsfilter.New(c) }},
}

// find returns the version with the number, or nil.
func (c versions) find(number int64) *stepVersion {
	for i := range c {
		if int64(c[i].number) == number {
			return &c[i]
		}
	}
	return nil
}

func (c versions) newest() *stepVersion { return &c[len(c)-1] }

func (c versions) numbers() []int32 {
	var numbers []int32
	for i := range c {
		numbers = append(numbers, c[i].number)
	}
	return numbers
}

// StepVersions are the versions of the step that this binary carries, oldest
// first. A partition without a checkpoint starts with the newest.
func StepVersions() []int32 { return stepVersions.numbers() }

// UnknownVersionError says that the log or a checkpoint asks for a step that
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
	v := stepVersions.find(int64(version))
	if v == nil {
		return wire.Location{}, fmt.Errorf("step version %d: this binary carries %v", version, stepVersions.numbers())
	}
	return v.newSwitch(settings)
}

func (v *stepVersion) newSwitch(settings Settings) (wire.Location, error) {
	digest, err := v.goldenDigest(settings)
	if err != nil {
		return wire.Location{}, err
	}
	return wire.Location{Kind: wire.KindVersionSwitch, Switch: wire.VersionSwitch{
		StepVersion: v.number, Settings: settings.Encode(), GoldenDigest: digest,
	}}, nil
}

// switchVersion starts the step version and settings that the log names.
func (p *Partition) switchVersion(offset int64, s *wire.VersionSwitch) error {
	refuse := func(reason string) error {
		return &UnknownVersionError{Offset: offset, StepVersion: s.StepVersion, Carried: p.carried.numbers(), Reason: reason}
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
	if err := p.use(version, settings); err != nil {
		return refuse(err.Error())
	}
	// The filter may have changed, and live must stay what base and the open
	// fixes make of it: it is made again when the vehicle reports next. Dues
	// may come earlier than they are placed.
	for _, v := range p.vehicles {
		v.liveValid = false
		p.dues.lower(v, p.due(v))
	}
	return nil
}

// use makes the partition step by a version and settings from now on.
func (p *Partition) use(version *stepVersion, settings Settings) error {
	if err := settings.validate(); err != nil {
		return fmt.Errorf("step settings: %w", err)
	}
	f, err := version.newFilter(settings.Filter)
	if err != nil {
		return fmt.Errorf("step settings: %w", err)
	}
	p.version, p.settings, p.filter = version, settings, f
	return nil
}

// restore makes the partition step by what its checkpoint says.
func (p *Partition) restore(h header) error {
	version := p.carried.find(h.stepVersion)
	if version == nil {
		return &UnknownVersionError{Offset: h.offset, StepVersion: int32(h.stepVersion), Carried: p.carried.numbers(), Reason: unknownVersion}
	}
	settings, err := DecodeSettings(h.settings)
	if err != nil {
		return err
	}
	p.clockMS, p.offset = h.clockMS, h.offset
	return p.use(version, settings)
}

// InForce is what a partition's checkpoint says that it is stepped by.
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

// goldenCut is how many records of the golden log lie between two cuts.
const goldenCut = 50

// goldenDigest is the SHA-256 of the filter's own golden outputs and of what a
// small log yields, tracks and checkpoints: a binary that answers another digest
// would disagree about the real one, or leave state that others can't read.
func (v *stepVersion) goldenDigest(settings Settings) ([]byte, error) {
	p, err := newPartition(versions{*v}, settings, 1)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	ofFilter := p.filter.GoldenDigest()
	hash.Write(ofFilter[:])
	for i, rec := range goldenLog() {
		if i%goldenCut == 0 {
			for _, change := range p.Cut(nil).Changes {
				hash.Write(change.Key)
				hash.Write(change.Value)
			}
		}
		r, err := p.Step(rec)
		if err != nil {
			return nil, fmt.Errorf("golden log: %w", err)
		}
		if r.Poison != nil {
			return nil, fmt.Errorf("golden log: %w", r.Poison)
		}
		hash.Write(r.Track.Append(nil))
	}
	return hash.Sum(nil), nil
}

// goldenLog is a log in which a bit of everything happens: three vehicles drive
// and stand, report more or less, repeat themselves, come out of order and
// late, change sessions and clocks, and fall silent.
func goldenLog() []eventlog.Stored {
	const startMS = 1_767_268_800_000
	var records []eventlog.Stored
	add := func(seconds int64, key string, l wire.Location) {
		records = append(records, eventlog.Stored{
			Offset: int64(len(records)), AppendTimeMS: startMS + seconds*1000, Key: []byte(key), Value: l.Append(nil),
		})
	}
	for i := range int64(240) {
		vehicle := i % 3
		session := uint64(1 + i/150)
		fixSecond := i
		switch {
		case i%17 == 5:
			fixSecond -= 9 // out of order
		case i%41 == 7:
			fixSecond -= 100 // late
		case i >= 180 && vehicle == 1:
			fixSecond -= 3600 // a clock that was set back
		case i == 120:
			fixSecond += 3600 // and one that jumped
		}
		r := wire.Report{SessionID: session, Sequence: 1 + i%150 - i%29/28}
		for k := range 1 + i%4 {
			ms := startMS + (fixSecond-k)*1000
			driven := float64(min(fixSecond-k, 100)) // then it stands
			r.Fixes = append(r.Fixes, wire.Fix{
				DeviceTimeMS: ms,
				LatDeg:       30.27 + float64(vehicle) + driven*1e-4 + float64(i%7)*1e-6,
				LonDeg:       -97.74 + float64(i%5)*1e-6,
				AccuracyM:    float32(3 + i%6), SpeedMPS: 11, HeadingDeg: 1,
				Has: wire.Has(i % 8),
			})
		}
		if i%13 == 0 {
			r.Availability = starlingv1.Availability(1 + i%4)
		}
		add(i, string(rune('a'+vehicle)), wire.Location{Kind: wire.KindReport, Report: r})
	}
	for _, later := range []int64{270, 271, 300, 400, 90_000} {
		add(later, "", wire.Location{Kind: wire.KindTick})
	}
	return records
}
